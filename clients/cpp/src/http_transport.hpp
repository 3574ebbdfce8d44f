// One frame per POST, on kept-alive connections; Open Inference where no frames are known.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <thread>

#include "http_pool.hpp"
#include "transport.hpp"

namespace kingpole::detail {

/// How a server is asked, once it is known.
enum class dialect : std::uint8_t { frames, binary_open_inference, json_open_inference };

/// A server over HTTP.
class http_transport final : public transport {
  public:
    http_transport(address address, std::string token, std::shared_ptr<trust> trust, std::uint64_t limit);
    ~http_transport() override;

    [[nodiscard]] answer infer(const infer_question& asked, const deadline& deadline,
                               std::stop_token stop) override;
    [[nodiscard]] result<std::shared_ptr<slot>> submit(const infer_question& asked,
                                                       const deadline& deadline) override;
    [[nodiscard]] result<std::unique_ptr<source>> open(const infer_question& asked, const deadline& deadline,
                                                       std::stop_token stop) override;
    [[nodiscard]] answer ask(const question& asked, const deadline& deadline) override;
    [[nodiscard]] result<bool> live(const deadline& deadline) override;
    void close() override;

  private:
    [[nodiscard]] answer infer_in_frames(const infer_question& asked, const deadline& deadline,
                                         const std::stop_token& stop, bool& refused);
    void work();

    std::shared_ptr<http_pool> pool_;
    std::atomic<dialect> dialect_ = dialect::frames;
    /// Requests that were submitted, and the threads that send them: as many as there are requests at once.
    std::mutex mutex_;
    std::condition_variable work_changed_;
    std::deque<std::function<void()>> work_;
    std::vector<std::thread> threads_;
    std::size_t idle_threads_ = 0;
    bool closed_ = false;
    std::stop_source all_;
};

}  // namespace kingpole::detail
