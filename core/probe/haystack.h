#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sparsight {

/// Cuts text into sentences; each keeps the white space before it, so that joining gives the text
/// back (less white space at its end). Ends: . ! ? with closing quotes behind, before white space,
/// and empty lines; not behind "Mr." and the like.
std::vector<std::string> splitSentences(std::string_view utf8);

/// An endless row of sentences from a text file, repeated, or the built-in prose.
class Haystack {
public:
    /// @param file  empty = built-in prose  @throws Error(NotFound), Error(Io), Error(Format) not
    ///        UTF-8, Error(Usage) no sentence in it
    Haystack(const std::string& file, std::uint64_t seed);
    /// Sentence `i` with the white space before it (none before the first). The seed chooses where
    /// in the file the row begins.
    std::string sentence(std::uint64_t i) const;
    /// Sentences in any order make as good a text (true of the built-in prose).
    bool unordered() const { return m_sentences.empty(); }

private:
    std::uint64_t m_seed;
    std::uint64_t m_start = 0;
    std::vector<std::string> m_sentences;
};

}  // namespace sparsight
