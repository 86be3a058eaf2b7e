#include "grammar/ebnf.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "grammar/limits.h"
#include "grammar/regex.h"
#include "text/json_field.h"
#include "text/unicode.h"

namespace nanocp::grammar {
namespace {

// What stands on the right of ::=.
struct Term {
  enum class Kind { kText, kChars, kRule, kSequence, kChoice, kRepeat };
  Kind kind = Kind::kSequence;
  std::string text = {};  // kText; of kRule its name
  CharSet chars = {};
  std::vector<Term> parts = {};
  Builder::Count count = {1, 1};
};

struct NamedRule {
  Term body;
  RuleId id = 0;
};

bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_';
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<std::map<std::string, NamedRule>> parse() {
    std::map<std::string, NamedRule> rules;
    for (skip(true); at_ < text_.size(); skip(true)) {
      const std::string name = take_name();
      if (name.empty()) return wrong("a rule must begin with its name");
      skip(false);
      if (!take("::=")) return wrong("there must be ::= behind " + text::shown(name));
      skip(true);
      NANOCP_ASSIGN_OR_RETURN(Term body, choice(0));
      if (at_ < text_.size() && text_[at_] != '\n' && text_[at_] != '\r') {
        return wrong("the rule " + text::shown(name) + " should end here");
      }
      if (!rules.emplace(name, NamedRule{.body = std::move(body)}).second) {
        return wrong("the rule " + text::shown(name) + " is there twice");
      }
    }
    return rules;
  }

 private:
  Error wrong(const std::string& what) const {
    const std::string_view before = text_.substr(0, at_);
    const auto line = std::count(before.begin(), before.end(), '\n') + 1;
    return invalid_argument("grammar, line " + std::to_string(line) + ": " + what);
  }

  bool take(std::string_view wanted) {
    if (!text_.substr(at_).starts_with(wanted)) return false;
    at_ += wanted.size();
    return true;
  }

  std::string take_name() {
    const size_t begin = at_;
    while (at_ < text_.size() && is_name_char(text_[at_])) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }

  // White space and comments.
  void skip(bool over_lines) {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '#') {
        while (at_ < text_.size() && text_[at_] != '\n') ++at_;
      } else if (c == ' ' || c == '\t' || (over_lines && (c == '\n' || c == '\r'))) {
        ++at_;
      } else {
        return;
      }
    }
  }

  Result<Term> choice(int32_t depth) {
    if (depth > kRegexDepthMax) {
      return wrong("groups are nested deeper than " + std::to_string(kRegexDepthMax));
    }
    Term choice = {.kind = Term::Kind::kChoice};
    while (true) {
      NANOCP_ASSIGN_OR_RETURN(Term part, sequence(depth));
      choice.parts.push_back(std::move(part));
      skip(depth > 0);
      // The next alternative may stand on a line of its own.
      const size_t end = at_;
      skip(true);
      if (!take("|")) {
        at_ = end;
        return choice;
      }
      skip(true);
    }
  }

  Result<Term> sequence(int32_t depth) {
    Term sequence = {.kind = Term::Kind::kSequence};
    while (true) {
      skip(depth > 0);
      const char c = at_ < text_.size() ? text_[at_] : '\n';
      if (c == '\n' || c == '\r' || c == '|' || c == ')') return sequence;
      NANOCP_ASSIGN_OR_RETURN(Term term, atom(depth));
      NANOCP_ASSIGN_OR_RETURN(term, counted(std::move(term)));
      sequence.parts.push_back(std::move(term));
    }
  }

  Result<Term> atom(int32_t depth) {
    if (take("(")) {
      NANOCP_ASSIGN_OR_RETURN(Term inner, choice(depth + 1));
      skip(true);
      if (!take(")")) return wrong("a ( has no )");
      return inner;
    }
    if (text_[at_] == '"') return quoted();
    if (text_[at_] == '[' || text_[at_] == '.') return char_class();
    const std::string name = take_name();
    if (name.empty()) return wrong("unexpected " + text::shown(text_.substr(at_, 1)));
    return Term{.kind = Term::Kind::kRule, .text = name};
  }

  // Escapes are those of patterns.
  Result<Term> quoted() {
    Term term = {.kind = Term::Kind::kSequence};
    for (++at_; at_ < text_.size() && text_[at_] != '"';) {
      const size_t begin = at_;
      if (text_[at_] == '\\') {
        NANOCP_ASSIGN_OR_RETURN(const Term part, pattern_term(begin, escape_end(begin)));
        term.parts.push_back(part);
      } else {
        while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\') ++at_;
        term.parts.push_back(
            {.kind = Term::Kind::kText, .text = std::string(text_.substr(begin, at_ - begin))});
      }
    }
    if (!take("\"")) return wrong("a \" has no end");
    return term;
  }

  size_t escape_end(size_t begin) const {
    const char c = begin + 1 < text_.size() ? text_[begin + 1] : ' ';
    const size_t length = c == 'x' ? 4 : (c == 'u' ? 6 : 2);
    return std::min(begin + length, text_.size());
  }

  Result<Term> char_class() {
    const size_t begin = at_;
    if (text_[at_] == '.') return pattern_term(begin, begin + 1);
    for (size_t end = begin + 1; end < text_.size(); ++end) {
      if (text_[end] == '\\')
        ++end;
      else if (text_[end] == ']')
        return pattern_term(begin, end + 1);
    }
    return wrong("a [ has no ]");
  }

  // A class or an escape, which stands there as it would in a pattern.
  Result<Term> pattern_term(size_t begin, size_t end) {
    at_ = end;
    const auto regex = parse_regex(text_.substr(begin, end - begin), RegexMatch::kWhole);
    if (!regex.ok()) return wrong(regex.error().message);
    if (regex->parts.size() != 1 || regex->parts[0].kind != Regex::Kind::kChars) {
      return wrong("this is no character: " + text::shown(text_.substr(begin, end - begin)));
    }
    return Term{.kind = Term::Kind::kChars, .chars = regex->parts[0].chars};
  }

  Result<Term> counted(Term term) {
    std::optional<Builder::Count> count;
    if (take("*")) count = {0, kUnbounded};
    if (!count && take("+")) count = {1, kUnbounded};
    if (!count && take("?")) count = {0, 1};
    if (!count && at_ < text_.size() && text_[at_] == '{') {
      const size_t end = text_.find('}', at_);
      if (end == std::string_view::npos) return wrong("a { has no }");
      const std::string pattern = "a" + std::string(text_.substr(at_, end + 1 - at_));
      const auto regex = parse_regex(pattern, RegexMatch::kWhole);
      if (!regex.ok()) return wrong(regex.error().message);
      at_ = end + 1;
      count = regex->parts[0].count;
    }
    if (!count) return term;
    Term repeat = {.kind = Term::Kind::kRepeat, .count = *count};
    repeat.parts.push_back(std::move(term));
    return repeat;
  }

  const std::string_view text_;
  size_t at_ = 0;
};

class RuleBuilder {
 public:
  RuleBuilder(Builder& builder, std::map<std::string, NamedRule>& rules)
      : builder_(builder), rules_(rules) {}

  Result<NodeId> build() {
    for (auto& [name, rule] : rules_) {
      rule.id = builder_.add_rule("the rule " + text::shown(name), false);
    }
    for (const auto& [name, rule] : rules_) {
      builder_.define_rule(rule.id, build_term(rule.body, builder_.end()));
      if (!missing_.empty()) {
        return invalid_argument("grammar: the rule " + text::shown(name) + " uses " +
                                text::shown(missing_) + ", which is not there");
      }
    }
    const auto root = rules_.find("root");
    if (root == rules_.end()) return invalid_argument("grammar: there is no rule named root");
    return builder_.call(root->second.id, builder_.end());
  }

 private:
  NodeId build_term(const Term& term, NodeId next) {
    if (builder_.full()) return builder_.never();
    switch (term.kind) {
      case Term::Kind::kText:
        return builder_.literal(term.text, next);
      case Term::Kind::kChars:
        return builder_.character(term.chars, next);
      case Term::Kind::kRule: {
        const auto found = rules_.find(term.text);
        if (found != rules_.end()) return builder_.call(found->second.id, next);
        missing_ = term.text;
        return builder_.never();
      }
      case Term::Kind::kSequence:
        for (size_t i = term.parts.size(); i > 0; --i) next = build_term(term.parts[i - 1], next);
        return next;
      case Term::Kind::kChoice: {
        std::vector<NodeId> starts;
        for (const Term& part : term.parts) starts.push_back(build_term(part, next));
        return builder_.split(starts);
      }
      case Term::Kind::kRepeat:
        return builder_.repeat(
            term.count, [&](NodeId after) { return build_term(term.parts[0], after); }, next);
    }
    return next;
  }

  Builder& builder_;
  std::map<std::string, NamedRule>& rules_;
  std::string missing_;
};

}  // namespace

Result<NodeId> build_ebnf(Builder& builder, std::string_view grammar_text) {
  if (grammar_text.size() > kTextBytesMax) {
    return invalid_argument("the grammar has " + std::to_string(grammar_text.size()) +
                            " bytes, at most " + std::to_string(kTextBytesMax) + " are allowed");
  }
  NANOCP_ASSIGN_OR_RETURN(auto rules, Parser(grammar_text).parse());
  return RuleBuilder(builder, rules).build();
}

}  // namespace nanocp::grammar
