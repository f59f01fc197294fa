// Objects that are kept, with their memory, for whoever needs one next.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

namespace vicinal::host {

template <class T>
class Spares {
  struct GiveBack {
    Spares* to;
    void operator()(T* object) const { to->put(std::unique_ptr<T>(object)); }
  };

 public:
  // Goes back where it came from at the end of its life; that must be sooner than theirs.
  using Loan = std::unique_ptr<T, GiveBack>;

  // The one that was given back last, or a new one.
  Loan take() {
    {
      const std::lock_guard guard(lock_);
      if (!spares_.empty()) {
        Loan loan(spares_.back().release(), {this});
        spares_.pop_back();
        return loan;
      }
    }
    return Loan(new T(), {this});
  }

 private:
  void put(std::unique_ptr<T> object) {
    const std::lock_guard guard(lock_);
    spares_.push_back(std::move(object));
  }

  std::mutex lock_;
  std::vector<std::unique_ptr<T>> spares_;
};

}  // namespace vicinal::host
