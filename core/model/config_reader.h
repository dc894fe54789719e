#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "kernels/base/view.h"

namespace sparsight {

/// Reads the keys of one object of a config.json. It remembers which keys were looked at and notes
/// the defaults that it took. Every error names the file, the key and the rule.
class ConfigReader {
public:
    /// @param object  must outlive the reader
    /// @param where   names the source in messages
    /// @param notes   gets a sentence for every default taken and every key that nobody asked for
    ConfigReader(const nlohmann::json& object, std::string where, std::vector<std::string>& notes)
        : m_object(object), m_where(std::move(where)), m_notes(notes) {}
    /// Other spellings: a key that is looked for -> what this class of models calls it. A file that
    /// has only the usual spelling is understood as well.
    void setSpellings(const std::map<std::string, std::string>& keys) { m_spellings = keys; }

    double number(const std::string& key, double fallback, bool noteDefault = true);
    double positive(const std::string& key, double fallback, bool noteDefault = true);
    /// A whole number from 1 to 2^31 - 1.
    Index count(const std::string& key, Index fallback, bool noteDefault = true);
    /// As count, and 0 is allowed.
    Index countOrZero(const std::string& key, Index fallback);
    bool flag(const std::string& key, bool fallback);
    std::string text(const std::string& key, const std::string& fallback, bool noteDefault = true);
    std::vector<double> numbers(const std::string& key);
    std::vector<std::string> texts(const std::string& key);
    /// The key is there and not null.
    bool has(const std::string& key);
    /// The key is there, null or not.
    bool given(const std::string& key);
    /// @pre has(key)
    const nlohmann::json& at(const std::string& key) const { return m_object[spelled(key)]; }
    void note(const std::string& sentence) const { m_notes.push_back(sentence); }
    /// Notes every key that was not looked at and is not known to be harmless.
    void noteUnread() const;
    [[noreturn]] void fail(const std::string& key, const std::string& rule) const;
    /// @throws Error(Unsupported)
    [[noreturn]] void unsupported(const std::string& what) const;
    const std::string& where() const { return m_where; }
    /// The file's own name of a key.
    std::string spelled(const std::string& key) const;

private:
    const nlohmann::json& m_object;
    std::string m_where;
    std::vector<std::string>& m_notes;
    std::map<std::string, std::string> m_spellings;
    std::set<std::string> m_seen;
};

/// A number as a person writes it: 4, 0.5, 1e-05, Infinity.
std::string spell(double v);

/// "silu" for "swish", else the same. @throws Error(Unsupported) for a function that the forward
/// pass does not have, naming the key and the nearest function
std::string checkedActivation(const ConfigReader& reader, const std::string& key, std::string kind);

/// eos_token_id (a number, a list or null) as the ids that are inside the vocabulary; others are
/// noted. @throws Error(Format)
std::vector<std::int32_t> readEosTokens(const nlohmann::json& value, Index vocab,
                                        const std::string& where, std::vector<std::string>& notes);

}  // namespace sparsight
