#include <gtest/gtest.h>

#include "address.hpp"

namespace kingpole::detail {
namespace {

TEST(address, is_read_from_every_kind_of_url) {
    const auto http = parse_address("http://example.com/prefix/").value();
    EXPECT_EQ(http.authority(), "example.com:80");
    EXPECT_EQ(http.prefix, "/prefix");
    EXPECT_EQ(parse_address("grpc://[::1]:9000")->authority(), "[::1]:9000");
    EXPECT_EQ(parse_address("frame://localhost")->port, 8000);
    EXPECT_TRUE(parse_address("grpcs://h")->secure());
    EXPECT_EQ(parse_address("unix:/run/s")->path, "/run/s");
    EXPECT_EQ(parse_address("unix:///run/s")->text(), "unix:/run/s");
}

TEST(address, that_is_none_is_an_invalid_argument_that_names_it) {
    for (const char* url :
         {"", "localhost:8000", "ftp://h", "http://", "http://h:port", "http://h:70000", "http://u@h",
          "http://h?q", "grpc://h/path", "unix:", "http://[::1", "http://h\r\nX: y"}) {
        const auto read = parse_address(url);
        ASSERT_FALSE(read) << url;
        EXPECT_EQ(read.error().code, code::invalid_argument) << url;
        EXPECT_NE(read.error().message.find(url), std::string::npos) << url;
    }
}

TEST(options, that_the_address_has_no_use_for_are_refused) {
    EXPECT_EQ(client::connect("frame://h", {.token = "abc"}).error().code, code::invalid_argument);
    EXPECT_EQ(client::connect("http://h", {.token = "a\r\nb"}).error().code, code::invalid_argument);
    EXPECT_EQ(client::connect("http://h", {.root_certificates = "x"}).error().code, code::invalid_argument);
    EXPECT_EQ(client::connect("https://h", {.root_certificates = "no PEM"}).error().code,
              code::invalid_argument);
    EXPECT_EQ(client::connect("http://h", {.shared_memory_bytes = 1}).error().code, code::invalid_argument);
    EXPECT_EQ(client::connect("grpc://h").error().code, code::unimplemented);
}

}  // namespace
}  // namespace kingpole::detail
