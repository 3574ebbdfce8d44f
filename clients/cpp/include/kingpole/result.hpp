// A value or an error. The names are those of std::expected, which g++ 12 has in C++23 only.
#pragma once

#include <exception>
#include <functional>
#include <type_traits>
#include <utility>
#include <variant>

#include <kingpole/error.hpp>

namespace kingpole {

/// Thrown by `result::value()` where there is an error; nothing else in this library throws on purpose.
class bad_result_access : public std::exception {
  public:
    explicit bad_result_access(kingpole::error error) : error_(std::move(error)), text_(error_.text()) {}

    /// Return `CODE: message`.
    [[nodiscard]] const char* what() const noexcept override { return text_.c_str(); }

    /// Return the error that was there instead of a value.
    [[nodiscard]] const kingpole::error& error() const noexcept { return error_; }

  private:
    kingpole::error error_;
    std::string text_;
};

/// Either a `T` or a `kingpole::error`.
template <class T>
class [[nodiscard]] result {
  public:
    using value_type = T;
    using error_type = kingpole::error;

    result(T value) : either_(std::in_place_index<0>, std::move(value)) {}
    result(kingpole::error error) : either_(std::in_place_index<1>, std::move(error)) {}

    [[nodiscard]] bool has_value() const noexcept { return either_.index() == 0; }
    explicit operator bool() const noexcept { return has_value(); }

    /// The value; there must be one.
    T& operator*() & noexcept { return *std::get_if<0>(&either_); }
    const T& operator*() const& noexcept { return *std::get_if<0>(&either_); }
    T&& operator*() && noexcept { return std::move(*std::get_if<0>(&either_)); }
    T* operator->() noexcept { return std::get_if<0>(&either_); }
    const T* operator->() const noexcept { return std::get_if<0>(&either_); }

    /// The value, or `bad_result_access`.
    T& value() & { return has_value() ? **this : throw bad_result_access(error()); }
    const T& value() const& { return has_value() ? **this : throw bad_result_access(error()); }
    T&& value() && { return has_value() ? *std::move(*this) : throw bad_result_access(error()); }

    /// The error; there must be one.
    kingpole::error& error() & noexcept { return *std::get_if<1>(&either_); }
    const kingpole::error& error() const& noexcept { return *std::get_if<1>(&either_); }
    kingpole::error&& error() && noexcept { return std::move(*std::get_if<1>(&either_)); }

    /// The value, or what stands in for it.
    template <class U>
    [[nodiscard]] T value_or(U&& other) const& {
        return has_value() ? **this : static_cast<T>(std::forward<U>(other));
    }

    /// Go on with the value: `next` takes it and gives a result.
    template <class F>
    auto and_then(F&& next) && -> std::invoke_result_t<F, T&&> {
        if (!has_value()) return std::move(*this).error();
        return std::invoke(std::forward<F>(next), *std::move(*this));
    }

    /// Go on with the value: `next` takes it and gives a value.
    template <class F>
    auto transform(F&& next) && -> result<std::invoke_result_t<F, T&&>> {
        if (!has_value()) return std::move(*this).error();
        return std::invoke(std::forward<F>(next), *std::move(*this));
    }

  private:
    std::variant<T, kingpole::error> either_;
};

/// Done, or a `kingpole::error`.
template <>
class [[nodiscard]] result<void> {
  public:
    using value_type = void;
    using error_type = kingpole::error;

    result() = default;
    result(kingpole::error error) : error_(std::move(error)) {}

    [[nodiscard]] bool has_value() const noexcept { return !error_.has_value(); }
    explicit operator bool() const noexcept { return has_value(); }

    /// Nothing, or `bad_result_access`.
    void value() const {
        if (error_) throw bad_result_access(*error_);
    }

    /// The error; there must be one.
    kingpole::error& error() & noexcept { return *error_; }
    const kingpole::error& error() const& noexcept { return *error_; }
    kingpole::error&& error() && noexcept { return std::move(*error_); }

  private:
    std::optional<kingpole::error> error_;
};

}  // namespace kingpole
