// A server over HTTP that says what it is told to: for answers that no real server gives.
#pragma once

#include <atomic>
#include <netinet/in.h>
#include <string>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace kingpole::testing_server {

/// Reads a request of each connection's, says the next answer, and closes if it is told to.
class scripted_server {
  public:
    struct answer {
        std::string bytes;
        bool closes = true;
    };

    explicit scripted_server(std::vector<answer> answers) : answers_(std::move(answers)) {
        listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        ::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address);
        ::listen(listener_, 16);
        socklen_t size = sizeof address;
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
        port_ = ntohs(address.sin_port);
        thread_ = std::thread([this] { serve(); });
    }

    ~scripted_server() {
        ::shutdown(listener_, SHUT_RDWR);
        thread_.join();
        ::close(listener_);
    }

    scripted_server(const scripted_server&) = delete;
    scripted_server& operator=(const scripted_server&) = delete;

    [[nodiscard]] std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
    [[nodiscard]] std::vector<std::string> requests() { return requests_; }
    [[nodiscard]] int connections() const { return connections_; }

  private:
    void serve() {
        std::size_t next = 0;
        while (next < answers_.size()) {
            const int connection = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
            if (connection < 0) return;
            ++connections_;
            while (next < answers_.size()) {
                std::string request = read_request(connection);
                if (request.empty()) break;
                requests_.push_back(std::move(request));
                const answer& said = answers_[next++];
                (void)!::send(connection, said.bytes.data(), said.bytes.size(), MSG_NOSIGNAL);
                if (said.closes) break;
            }
            ::shutdown(connection, SHUT_WR);
            std::string rest(4096, '\0');
            while (::recv(connection, rest.data(), rest.size(), 0) > 0) {
            }
            ::close(connection);
        }
    }

    static std::string read_request(int connection) {
        std::string request;
        std::string piece(65536, '\0');
        std::size_t end = std::string::npos;
        std::size_t wanted = 0;
        while (end == std::string::npos || request.size() < wanted) {
            const ssize_t received = ::recv(connection, piece.data(), piece.size(), 0);
            if (received <= 0) return {};
            request.append(piece, 0, static_cast<std::size_t>(received));
            end = request.find("\r\n\r\n");
            if (end == std::string::npos) continue;
            const std::size_t length = request.find("Content-Length: ");
            wanted = end + 4 + (length < end ? std::stoul(request.substr(length + 16)) : 0);
        }
        return request;
    }

    std::vector<answer> answers_;
    std::vector<std::string> requests_;
    std::atomic<int> connections_ = 0;
    int listener_ = -1;
    int port_ = 0;
    std::thread thread_;
};

}  // namespace kingpole::testing_server
