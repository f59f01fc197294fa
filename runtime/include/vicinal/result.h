// Result<T>: a value or an Error, with the member names of std::expected so that it can become an alias
// of it once the oldest supported compiler has one.
#pragma once

#include <exception>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace vicinal {

// What went wrong, by who can mend it. The command line turns these into its exit codes.
enum class ErrorKind {
  spec,         // the spec has errors, alone or for this problem
  usage,        // an unknown name, an unreadable or malformed file, an output that cannot be written
  environment,  // the machine lacks what was asked for: driver, NVRTC, a tool
  mismatch,     // a check found wrong numbers or a corrupt entry
  limit,        // a limit or a time-out was hit
  internal,     // a bug of ours
};

// An error is an exception only when a caller asks for a value that is not there (Result::value).
class Error : public std::exception {
 public:
  Error(ErrorKind the_kind, std::string the_message, std::string the_help = {})
      : kind(the_kind), message(std::move(the_message)), help(std::move(the_help)) {}

  ErrorKind kind;
  std::string message;  // one sentence that says what is wrong
  std::string help;     // what to do about it; may be empty

  const char* what() const noexcept override { return message.c_str(); }
};

// Disambiguates Result<T>{error} from a value, as std::unexpected does.
struct Unexpected {
  Error error;
};

inline Unexpected unexpected(ErrorKind kind, std::string message, std::string help = {}) {
  return Unexpected{Error(kind, std::move(message), std::move(help))};
}

template <class T>
class [[nodiscard]] Result {
 public:
  using value_type = T;

  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Unexpected e) : state_(std::in_place_index<1>, std::move(e.error)) {}

  bool has_value() const noexcept { return state_.index() == 0; }
  explicit operator bool() const noexcept { return has_value(); }

  // Throws the Error when there is no value.
  T& value() & { return has_value() ? std::get<0>(state_) : throw_error(); }
  const T& value() const& {
    return has_value() ? std::get<0>(state_) : const_cast<Result*>(this)->throw_error();
  }
  T&& value() && { return std::move(has_value() ? std::get<0>(state_) : throw_error()); }

  // Unchecked, as in std::expected.
  T& operator*() & { return *std::get_if<0>(&state_); }
  const T& operator*() const& { return *std::get_if<0>(&state_); }
  T&& operator*() && { return std::move(*std::get_if<0>(&state_)); }
  T* operator->() { return std::get_if<0>(&state_); }
  const T* operator->() const { return std::get_if<0>(&state_); }

  const Error& error() const { return *std::get_if<1>(&state_); }
  Unexpected forward_error() const { return Unexpected{error()}; }

 private:
  [[noreturn]] T& throw_error() { throw std::get<1>(state_); }
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Unexpected e) : state_(std::in_place_index<1>, std::move(e.error)) {}

  bool has_value() const noexcept { return state_.index() == 0; }
  explicit operator bool() const noexcept { return has_value(); }
  void value() const {
    if (!has_value()) throw std::get<1>(state_);
  }
  const Error& error() const { return *std::get_if<1>(&state_); }
  Unexpected forward_error() const { return Unexpected{error()}; }

 private:
  std::variant<std::monostate, Error> state_;
};

}  // namespace vicinal

// Returns the error of a Result from the enclosing function, else binds or discards its value.
#define VICINAL_TRY(declaration, ...)                                                 \
  auto VICINAL_TRY_NAME(__LINE__) = (__VA_ARGS__);                                    \
  if (!VICINAL_TRY_NAME(__LINE__)) return VICINAL_TRY_NAME(__LINE__).forward_error(); \
  declaration = *std::move(VICINAL_TRY_NAME(__LINE__))
#define VICINAL_TRY_VOID(...) \
  if (auto vicinal_try_result = (__VA_ARGS__); !vicinal_try_result) return vicinal_try_result.forward_error()
#define VICINAL_TRY_NAME(line) VICINAL_TRY_NAME2(line)
#define VICINAL_TRY_NAME2(line) vicinal_try_##line
