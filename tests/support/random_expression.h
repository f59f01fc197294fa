// Random expressions of the language over whatever a scope lets them read. random_spec.cpp declares what
// there is to read.
#pragma once

#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace vicinal::testing::random {

enum class Type { integer, real, boolean };

constexpr std::string_view name_of(Type t) {
  return t == Type::integer ? "int" : t == Type::real ? "float" : "bool";
}

// What an expression may read where it stands.
struct Scope {
  bool query = false, key = false, score = false, out = false, lse = false;
  bool transcendental = true;  // on anything in scope
  bool grid_key = false;       // k is known not to be a context key, or there are none
  bool known_key = false;      // k is known to be of the grid or of the context: it may index
  bool function = false;       // sees its parameters only
  bool whole = false;          // no float arithmetic inside, and nothing that could hold some
  std::vector<std::pair<std::string, Type>> locals;
};

struct Input {
  std::string name;
  Type type;
  std::vector<std::string> dims;
};
struct Let {
  std::string name;
  Type type;
  Scope scope;
};
struct Function {
  std::string name;
  std::vector<Type> parameters;
  Type result;
  bool transcendental;
};

// In parentheses unless nothing could tear it apart.
std::string operand(const std::string& text);

class ExpressionGenerator {
 protected:
  ExpressionGenerator(unsigned seed, bool tame) : random_(seed), tame_(tame) {}

  // Chance and choice.
  std::int64_t below(std::int64_t n) {
    return static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(n));
  }
  bool chance(std::int64_t one_in) { return below(one_in) == 0; }
  template <class T>
  const T& pick(const std::vector<T>& list) {
    return list[static_cast<std::size_t>(below(static_cast<std::int64_t>(list.size())))];
  }
  std::string word(std::initializer_list<const char*> words) {
    return words.begin()[below(static_cast<std::int64_t>(words.size()))];
  }
  // A name that nothing else has, and that may mean something in C++ or CUDA.
  std::string introduce();
  std::string literal_real();

  // What a value of the launch may read, and what a score or mask may.
  Scope launch() const { return {}; }
  Scope pair(bool with_score) const;

  // Expressions of a type, `depth` levels deep.
  std::string any(const Scope& s, Type type, int depth);
  std::string boolean(const Scope& s, int depth);
  std::string real(const Scope& s, int depth);
  // |value| stays small, and so does its derivative with respect to the score. Conditions are whole numbers:
  // in a score, a float near a threshold may fall to either side of it.
  std::string bounded(const Scope& s, int depth);

  std::mt19937 random_;
  bool tame_;
  int names_ = 0, nesting_ = 0, depth_ = 3;
  bool context_ = false, softmax_ = true;
  std::string wrapper_, reader_;  // functions that take a function and an input; empty: there is none
  std::vector<std::string> bare_, axes_, extents_, constants_, dots_;
  std::vector<std::pair<std::string, Type>> params_;
  std::vector<Input> inputs_;
  std::vector<Let> lets_;
  std::vector<Function> functions_;

 private:
  std::string fresh();
  std::string literal_int();
  std::string leaf(const Scope& s, Type type);
  void integer_names(const Scope& s, std::vector<std::string>& names) const;
  std::string load(const Scope& s, Type type);
  std::vector<std::string> indices(const Scope& outer, const std::vector<std::string>& dims);
  std::string index(const Scope& s, const std::string& dim);
  std::string integer(const Scope& s, int depth);
  // Of one IEEE operation each, and without the score: what a mask may use.
  std::string exact_real(Scope s, int depth);
  std::string choice(const Scope& s, Type type, int depth);
  std::string reduction(const Scope& s, const char* kind, Type type, int depth);
  std::string call(const Scope& s, Type type, int depth);
};

}  // namespace vicinal::testing::random
