#include "core/model/chat_template_parser.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>

#include "kernels/base/error.h"

namespace sparsight::jinja {
namespace {

constexpr int kMaxDepth = 64;

struct Token {
    enum class Kind { Text, Begin, End, Name, String, Integer, Float, Symbol, Eof } kind;
    std::string text;  ///< Begin: "{{" or "{%"
    int line = 0;
};

bool isNameChar(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
}

/// Cuts a template into text and the tokens of its tags; white space control is done here.
class Lexer {
public:
    Lexer(std::string_view source, const std::string& where) : m_where(where) {
        for (std::size_t i = 0; i < source.size(); ++i) {  // as Jinja: all line ends are \n
            if (source[i] == '\r') {
                m_source += '\n';
                if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
            } else {
                m_source += source[i];
            }
        }
        if (m_source.ends_with('\n')) m_source.pop_back();
    }

    std::vector<Token> run() {
        bool trimLeft = false, dropNewline = false;  // what the tag before asks of the text
        bool lineStart = true;                       // the text begins a line
        while (m_at < m_source.size()) {
            const std::size_t tag = nextTag();
            std::size_t begin = m_at;
            if (trimLeft)
                while (begin < tag && isSpace(m_source[begin])) ++begin;
            else if (dropNewline && begin < tag && m_source[begin] == '\n')
                ++begin;
            if (m_at > 0) lineStart = begin > m_at && m_source[begin - 1] == '\n';
            std::string text = m_source.substr(begin, tag - begin);
            const bool atEnd = tag == m_source.size();
            const char control = tag + 2 < m_source.size() ? m_source[tag + 2] : ' ';
            if (!atEnd && control == '-')
                while (!text.empty() && isSpace(text.back())) text.pop_back();
            else if (!atEnd && control != '+' && m_source[tag + 1] != '{')
                stripLine(text, lineStart);
            if (!text.empty()) add(Token::Kind::Text, text);
            countLines(m_at, tag);
            m_at = tag;
            if (atEnd) break;
            if (m_source[tag + 1] == '#') {
                const std::size_t end = m_source.find("#}", tag + 2);
                if (end == std::string::npos) broken("a comment is not closed");
                countLines(tag, end);
                trimLeft = end > tag + 2 && m_source[end - 1] == '-';
                dropNewline = true;
                m_at = end + 2;
            } else {
                const bool output = m_source[tag + 1] == '{';
                add(Token::Kind::Begin, output ? "{{" : "{%");
                m_at = tag + 2 + (control == '-' || control == '+' ? 1 : 0);
                const char closed = tokens(output ? "}}" : "%}");
                trimLeft = closed == '-';
                dropNewline = !output && closed != '+';
            }
        }
        add(Token::Kind::Eof, "");
        return std::move(m_tokens);
    }

private:
    [[noreturn]] void broken(const std::string& what) const {
        throw Error(Errc::Format, m_where + ", line " + std::to_string(m_line) +
                                      ": the chat template is broken: " + what);
    }
    void add(Token::Kind kind, std::string text) {
        m_tokens.push_back({kind, std::move(text), m_line});
    }
    void countLines(std::size_t begin, std::size_t end) {
        m_line += int(std::count(m_source.begin() + std::ptrdiff_t(begin),
                                 m_source.begin() + std::ptrdiff_t(end), '\n'));
    }
    static bool isSpace(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }
    /// Where the next "{{", "{%" or "{#" is, or the end.
    std::size_t nextTag() const {
        for (std::size_t at = m_at; (at = m_source.find('{', at)) != std::string::npos; ++at)
            if (at + 1 < m_source.size() &&
                std::string_view("{%#").find(m_source[at + 1]) != std::string_view::npos)
                return at;
        return m_source.size();
    }
    /// Drops the blanks before a block tag when nothing else is before it on its line.
    static void stripLine(std::string& text, bool startsLine) {
        std::size_t end = text.size();
        while (end > 0 && isSpace(text[end - 1]) && text[end - 1] != '\n') --end;
        if (end == 0 ? startsLine : text[end - 1] == '\n') text.erase(end);
    }

    /// Tokens up to the closing delimiter; gives the control character before it, or 0.
    char tokens(std::string_view close) {
        std::vector<char> open;
        while (true) {
            while (m_at < m_source.size() &&
                   std::isspace(static_cast<unsigned char>(m_source[m_at])) != 0) {
                if (m_source[m_at] == '\n') ++m_line;
                ++m_at;
            }
            if (m_at >= m_source.size()) broken("a tag is not closed");
            const std::string_view rest = std::string_view(m_source).substr(m_at);
            const char c = rest[0];
            if (open.empty()) {
                const bool control = (c == '-' || c == '+') && rest.substr(1).starts_with(close);
                if (control || rest.starts_with(close)) {
                    add(Token::Kind::End, std::string(close));
                    m_at += close.size() + (control ? 1 : 0);
                    return control ? c : '\0';
                }
            }
            if (c == '\'' || c == '"') {
                add(Token::Kind::String, quoted(c));
            } else if (std::isdigit(static_cast<unsigned char>(c)) != 0) {
                number();
            } else if (isNameChar(c)) {
                std::size_t n = 0;
                while (n < rest.size() && isNameChar(rest[n])) ++n;
                add(Token::Kind::Name, std::string(rest.substr(0, n)));
                m_at += n;
            } else {
                if (c == '(' || c == '[' || c == '{') open.push_back(c);
                if ((c == ')' || c == ']' || c == '}') && !open.empty()) open.pop_back();
                constexpr std::array<std::string_view, 6> kTwo = {
                    "==", "!=", "<=", ">=", "//", "**"};
                const bool two =
                    std::find(kTwo.begin(), kTwo.end(), rest.substr(0, 2)) != kTwo.end();
                if (!two &&
                    std::string_view("()[]{}.,:|=<>+-*/%~").find(c) == std::string_view::npos)
                    broken(std::string("unexpected '") + c + "'");
                add(Token::Kind::Symbol, std::string(rest.substr(0, two ? 2 : 1)));
                m_at += two ? 2 : 1;
            }
        }
    }

    std::string quoted(char quote) {
        std::string out;
        for (++m_at; m_at < m_source.size() && m_source[m_at] != quote; ++m_at) {
            char c = m_source[m_at];
            if (c == '\n') ++m_line;
            if (c == '\\' && m_at + 1 < m_source.size()) {
                c = m_source[++m_at];
                const std::size_t known = std::string_view("ntr\\'\"").find(c);
                if (known == std::string_view::npos)
                    out += '\\';  // Python keeps what it does not know
                else
                    c = "\n\t\r\\'\""[known];
            }
            out += c;
        }
        if (m_at >= m_source.size()) broken("a string is not closed");
        ++m_at;
        return out;
    }

    void number() {
        std::size_t n = m_at;
        const auto digits = [&] {
            while (n < m_source.size() &&
                   std::isdigit(static_cast<unsigned char>(m_source[n])) != 0)
                ++n;
        };
        digits();
        bool real = false;
        if (n + 1 < m_source.size() && m_source[n] == '.' &&
            std::isdigit(static_cast<unsigned char>(m_source[n + 1])) != 0) {
            real = true;
            ++n;
            digits();
        }
        if (n - m_at > 18) broken("a number is too long");
        add(real ? Token::Kind::Float : Token::Kind::Integer, m_source.substr(m_at, n - m_at));
        m_at = n;
    }

    std::string m_source;
    const std::string& m_where;
    std::size_t m_at = 0;
    int m_line = 1;
    std::vector<Token> m_tokens;
};

class Parser {
public:
    Parser(std::vector<Token> tokens, const std::string& where)
        : m_tokens(std::move(tokens)), m_where(where) {}

    Block run() {
        Block block = statements({});
        if (peek().kind != Token::Kind::Eof) broken("unexpected tag");
        return block;
    }

private:
    using Kind = Expression::Kind;

    const Token& peek(std::size_t ahead = 0) const {
        return m_tokens[std::min(m_at + ahead, m_tokens.size() - 1)];
    }
    Token take() { return m_tokens[std::min(m_at++, m_tokens.size() - 1)]; }
    bool is(Token::Kind kind, std::string_view text, std::size_t ahead = 0) const {
        return peek(ahead).kind == kind && peek(ahead).text == text;
    }
    bool isName(std::string_view text, std::size_t ahead = 0) const {
        return is(Token::Kind::Name, text, ahead);
    }
    bool isSymbol(std::string_view text) const { return is(Token::Kind::Symbol, text); }
    bool accept(std::string_view symbol) {
        if (!isSymbol(symbol)) return false;
        ++m_at;
        return true;
    }
    bool acceptName(std::string_view name) {
        if (!isName(name)) return false;
        ++m_at;
        return true;
    }
    [[noreturn]] void broken(const std::string& what) const {
        throw Error(Errc::Format, m_where + ", line " + std::to_string(peek().line) +
                                      ": the chat template is broken: " + what);
    }
    void expect(std::string_view symbol) {
        if (!accept(symbol)) broken("'" + std::string(symbol) + "' is expected");
    }
    std::string name() {
        if (peek().kind != Token::Kind::Name) broken("a name is expected");
        return take().text;
    }
    void endTag() {
        if (peek().kind != Token::Kind::End) broken("the tag should end here");
        ++m_at;
    }
    /// Guards the stack against hostile nesting.
    struct Deeper {
        Parser& parser;
        explicit Deeper(Parser& p) : parser(p) {
            if (++p.m_depth > kMaxDepth) p.broken("it is nested too deeply");
        }
        ~Deeper() { --parser.m_depth; }
    };

    /// Statements up to a tag that begins with one of `ends`, which is left in place.
    Block statements(const std::vector<std::string_view>& ends) {
        const Deeper deeper(*this);
        Block block;
        while (peek().kind != Token::Kind::Eof) {
            Statement s{};
            s.line = peek().line;
            if (peek().kind == Token::Kind::Text) {
                s.kind = Statement::Kind::Text;
                s.text = take().text;
            } else if (is(Token::Kind::Begin, "{{")) {
                ++m_at;
                s.kind = Statement::Kind::Output;
                s.value = expression();
                endTag();
            } else {
                const std::string& tag = peek(1).text;
                if (std::find(ends.begin(), ends.end(), tag) != ends.end()) return block;
                ++m_at;
                statement(s);
            }
            block.push_back(std::move(s));
        }
        return block;
    }

    /// The body up to `{% end %}`, which is taken.
    Block body(std::string_view end) {
        Block b = statements({end});
        closing(end);
        return b;
    }
    void closing(std::string_view end) {
        if (!is(Token::Kind::Begin, "{%") || !isName(end, 1))
            broken("{% " + std::string(end) + " %} is missing");
        m_at += 2;
        endTag();
    }

    void statement(Statement& s) {
        const std::string tag = name();
        if (tag == "if") {
            s.kind = Statement::Kind::If;
            ExpressionPtr condition = expression();
            endTag();
            while (true) {
                Block b = statements({"elif", "else", "endif"});
                s.branches.emplace_back(std::move(condition), std::move(b));
                if (isName("elif", 1)) {
                    m_at += 2;
                    condition = expression();
                    endTag();
                } else if (isName("else", 1)) {
                    m_at += 2;
                    endTag();
                    s.branches.emplace_back(nullptr, statements({"endif"}));
                    break;
                } else {
                    break;
                }
            }
            closing("endif");
        } else if (tag == "for") {
            s.kind = Statement::Kind::For;
            s.names = targets();
            if (!acceptName("in")) broken("'in' is expected");
            s.value = logicalOr();  // an 'if' here filters
            if (acceptName("if")) s.condition = expression();
            if (isName("recursive")) unsupported(m_where, s.line, "recursive loops");
            endTag();
            s.body = statements({"else", "endfor"});
            if (isName("else", 1)) {
                m_at += 2;
                endTag();
                s.orElse = statements({"endfor"});
            }
            closing("endfor");
        } else if (tag == "set") {
            s.kind = Statement::Kind::Set;
            s.names = targets();
            if (accept(".")) s.attribute = name();
            if (accept("=")) {
                s.value = tupleOrExpression();
                endTag();
            } else {
                if (isSymbol("|")) unsupported(m_where, s.line, "filters on {% set %} blocks");
                endTag();
                s.body = body("endset");
            }
        } else if (tag == "macro") {
            s.kind = Statement::Kind::Macro;
            s.text = name();
            expect("(");
            while (!accept(")")) {
                s.names.push_back(name());
                s.defaults.push_back(accept("=") ? expression() : nullptr);
                if (!isSymbol(")")) expect(",");
            }
            endTag();
            s.body = body("endmacro");
        } else if (tag == "generation") {
            s.kind = Statement::Kind::Group;
            endTag();
            s.body = body("endgeneration");
        } else if (tag == "break" || tag == "continue") {
            s.kind = tag == "break" ? Statement::Kind::Break : Statement::Kind::Continue;
            endTag();
        } else if (tag.starts_with("end") || tag == "else" || tag == "elif") {
            broken("{% " + tag + " %} without a beginning");
        } else {
            unsupported(m_where, s.line, "{% " + tag + " %}");
        }
    }

    std::vector<std::string> targets() {
        const bool parenthesis = accept("(");
        std::vector<std::string> names{name()};
        while (accept(",")) names.push_back(name());
        if (parenthesis) expect(")");
        return names;
    }

    ExpressionPtr make(Kind kind, std::string name = {}) const {
        auto e = std::make_unique<Expression>();
        e->kind = kind;
        e->line = peek().line;
        e->name = std::move(name);
        return e;
    }
    ExpressionPtr binary(std::string name, ExpressionPtr left, ExpressionPtr right) const {
        ExpressionPtr e = make(Kind::Binary, std::move(name));
        e->parts.push_back(std::move(left));
        e->parts.push_back(std::move(right));
        return e;
    }

    ExpressionPtr tupleOrExpression() {
        ExpressionPtr first = expression();
        if (!isSymbol(",")) return first;
        ExpressionPtr list = make(Kind::List);
        list->parts.push_back(std::move(first));
        while (accept(",") && peek().kind != Token::Kind::End) list->parts.push_back(expression());
        return list;
    }

    ExpressionPtr expression() {
        const Deeper deeper(*this);
        ExpressionPtr value = logicalOr();
        while (acceptName("if")) {
            ExpressionPtr e = make(Kind::Choice);
            e->parts.push_back(logicalOr());
            e->parts.push_back(std::move(value));
            e->parts.push_back(acceptName("else") ? expression() : nullptr);
            value = std::move(e);
        }
        return value;
    }
    ExpressionPtr logicalOr() {
        ExpressionPtr e = logicalAnd();
        while (acceptName("or")) e = binary("or", std::move(e), logicalAnd());
        return e;
    }
    ExpressionPtr logicalAnd() {
        ExpressionPtr e = logicalNot();
        while (acceptName("and")) e = binary("and", std::move(e), logicalNot());
        return e;
    }
    ExpressionPtr logicalNot() {
        if (!isName("not") || isName("in", 1)) return comparison();
        const Deeper deeper(*this);
        ++m_at;
        ExpressionPtr e = make(Kind::Unary, "not");
        e->parts.push_back(logicalNot());
        return e;
    }
    ExpressionPtr comparison() {
        ExpressionPtr e = sum();
        bool chained = false;
        while (true) {
            std::string op;
            for (const char* symbol : {"==", "!=", "<=", ">=", "<", ">"})
                if (isSymbol(symbol)) op = symbol;
            if (!op.empty())
                ++m_at;
            else if (acceptName("in"))
                op = "in";
            else if (isName("not") && isName("in", 1)) {
                m_at += 2;
                op = "not in";
            } else {
                return e;
            }
            if (chained) unsupported(m_where, peek().line, "chains of comparisons");
            chained = true;
            e = binary(op, std::move(e), sum());
        }
    }
    ExpressionPtr sum() {
        ExpressionPtr e = concat();
        while (isSymbol("+") || isSymbol("-")) {
            const std::string op = take().text;
            e = binary(op, std::move(e), concat());
        }
        return e;
    }
    ExpressionPtr concat() {
        ExpressionPtr e = product();
        while (accept("~")) e = binary("~", std::move(e), product());
        return e;
    }
    ExpressionPtr product() {
        ExpressionPtr e = unary();
        while (isSymbol("*") || isSymbol("/") || isSymbol("//") || isSymbol("%")) {
            const std::string op = take().text;
            e = binary(op, std::move(e), unary());
        }
        if (isSymbol("**")) unsupported(m_where, peek().line, "powers");
        return e;
    }
    ExpressionPtr unary() {
        if (!isSymbol("-") && !isSymbol("+")) return filters(postfix(primary()));
        const Deeper deeper(*this);
        ExpressionPtr e = make(Kind::Unary, take().text);
        e->parts.push_back(unary());
        return e;
    }

    ExpressionPtr primary() {
        const Token t = peek();
        ExpressionPtr e;
        switch (t.kind) {
            case Token::Kind::String:
                e = make(Kind::String);
                while (peek().kind == Token::Kind::String) e->name += take().text;
                return e;
            case Token::Kind::Integer:
                ++m_at;
                e = make(Kind::Integer);
                e->number = std::strtoll(t.text.c_str(), nullptr, 10);
                return e;
            case Token::Kind::Float:
                ++m_at;
                e = make(Kind::Float);
                e->real = std::strtod(t.text.c_str(), nullptr);
                return e;
            case Token::Kind::Name:
                ++m_at;
                if (t.text == "true" || t.text == "True") return make(Kind::True);
                if (t.text == "false" || t.text == "False") return make(Kind::False);
                if (t.text == "none" || t.text == "None") return make(Kind::None);
                return make(Kind::Variable, t.text);
            case Token::Kind::Symbol:
                break;
            default:
                broken("a value is expected");
        }
        if (accept("(")) {
            if (accept(")")) return make(Kind::List);
            ExpressionPtr first = expression();
            if (isSymbol(",")) {
                e = make(Kind::List);
                e->parts.push_back(std::move(first));
                while (accept(","))
                    if (!isSymbol(")")) e->parts.push_back(expression());
                first = std::move(e);
            }
            expect(")");
            return first;
        }
        if (accept("[")) {
            e = make(Kind::List);
            while (!accept("]")) {
                e->parts.push_back(expression());
                if (!isSymbol("]")) expect(",");
            }
            return e;
        }
        if (accept("{")) {
            e = make(Kind::Dict);
            while (!accept("}")) {
                e->parts.push_back(expression());
                expect(":");
                e->parts.push_back(expression());
                if (!isSymbol("}")) expect(",");
            }
            return e;
        }
        broken("a value is expected");
    }

    ExpressionPtr postfix(ExpressionPtr e) {
        while (true) {
            if (accept(".")) {
                ExpressionPtr next = make(Kind::Attribute, name());
                next->parts.push_back(std::move(e));
                e = std::move(next);
            } else if (accept("[")) {
                e = subscript(std::move(e));
            } else if (isSymbol("(")) {
                ExpressionPtr next = make(Kind::Call);
                next->parts.push_back(std::move(e));
                arguments(*next);
                e = std::move(next);
            } else {
                return e;
            }
        }
    }
    ExpressionPtr subscript(ExpressionPtr object) {
        std::vector<ExpressionPtr> parts;
        bool slice = false;
        parts.push_back(isSymbol(":") ? nullptr : expression());
        while (accept(":")) {
            slice = true;
            parts.push_back(isSymbol(":") || isSymbol("]") ? nullptr : expression());
        }
        expect("]");
        if (parts.size() > 3) broken("a slice has at most three parts");
        ExpressionPtr e = make(slice ? Kind::Slice : Kind::Index);
        e->parts.push_back(std::move(object));
        for (ExpressionPtr& p : parts) e->parts.push_back(std::move(p));
        if (slice) e->parts.resize(4);
        return e;
    }
    void arguments(Expression& call) {
        expect("(");
        while (!accept(")")) {
            if (isSymbol("*") || isSymbol("**"))
                unsupported(m_where, peek().line, "arguments with *");
            if (peek().kind == Token::Kind::Name && is(Token::Kind::Symbol, "=", 1)) {
                std::string key = take().text;
                ++m_at;
                call.named.emplace_back(std::move(key), expression());
            } else {
                call.parts.push_back(expression());
            }
            if (!isSymbol(")")) expect(",");
        }
    }
    ExpressionPtr filters(ExpressionPtr e) {
        while (true) {
            if (accept("|")) {
                ExpressionPtr next = make(Kind::Filter, name());
                next->parts.push_back(std::move(e));
                if (isSymbol("(")) arguments(*next);
                e = postfix(std::move(next));
            } else if (acceptName("is")) {
                const bool negated = acceptName("not");
                ExpressionPtr next = make(Kind::Test, name());
                next->parts.push_back(std::move(e));
                const Token::Kind kind = peek().kind;
                const bool word = kind == Token::Kind::Name && !isName("and") && !isName("or") &&
                                  !isName("else") && !isName("if") && !isName("is") &&
                                  !isName("in") && !isName("not");
                if (isSymbol("("))
                    arguments(*next);
                else if (word || kind == Token::Kind::String || kind == Token::Kind::Integer)
                    next->parts.push_back(postfix(primary()));
                e = std::move(next);
                if (negated) {
                    next = make(Kind::Unary, "not");
                    next->parts.push_back(std::move(e));
                    e = std::move(next);
                }
            } else {
                return e;
            }
        }
    }

    std::vector<Token> m_tokens;
    const std::string& m_where;
    std::size_t m_at = 0;
    int m_depth = 0;
};

}  // namespace

void unsupported(const std::string& where, int line, const std::string& what) {
    throw Error(Errc::Unsupported,
                where + ", line " + std::to_string(line) + ": the chat template uses " + what +
                    ", which is not supported; render the conversation with transformers "
                    "(apply_chat_template) and give it as a text");
}

Block parse(std::string_view source, const std::string& where) {
    return Parser(Lexer(source, where).run(), where).run();
}

}  // namespace sparsight::jinja
