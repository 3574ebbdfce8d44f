// The cases of protocol/conformance/README.md. Each gives nothing if all is as it should be.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include <kingpole/kingpole.hpp>

namespace kingpole::conformance {

/// What was expected and what came.
class failure : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

/// The case does not apply.
class not_applicable : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

struct situation {
    std::string url;
    std::string extra;
};

inline void expect_that(bool holds, const std::string& what) {
    if (!holds) throw failure(what);
}

/// Return the value, or fail with the error.
template <class T>
T good(result<T> result, const std::string& what) {
    if (!result) throw failure(what + ": " + result.error().text());
    return *std::move(result);
}

/// Expect an error of a code whose text has some words.
template <class T>
error bad(const result<T>& result, code expected, const std::string& words, const std::string& what) {
    expect_that(!result.has_value(), what + ": expected " + std::string(name(expected)) + ", got a response");
    const error& came = result.error();
    expect_that(
        came.code == expected && came.message.find(words) != std::string::npos,
        what + ": expected " + std::string(name(expected)) + " with '" + words + "', got " + came.text());
    return came;
}

client connect(const std::string& url, options options = {});
std::string transport_of(const std::string& url);

/// Ask echo-fp32 for values, and expect them back.
void expect_echo(client& client, std::vector<float> values = {1.5F, -2, 0});
tensor x(std::vector<float> values = {1, 2, 3});
void wait_for_file(const std::string& path, std::chrono::seconds limit);

void server(const situation&);
void datatypes(const situation&);
void shapes(const situation&);
void parameters_case(const situation&);
void errors(const situation&);
void deadline(const situation&);
void cancel(const situation&);
void stream(const situation&);
void sequence_case(const situation&);
void pipeline(const situation&);
void large(const situation&);
void killed(const situation&);
void hostile(const situation&);
void open_inference(const situation&);
void tls(const situation&);
void token(const situation&);
void shared_memory(const situation&);
void first_errors(client& client);
void model_metadata_case(client& client);
int encode_vectors(const std::string& directory, const std::string& out);

}  // namespace kingpole::conformance
