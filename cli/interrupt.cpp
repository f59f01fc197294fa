// A thread waits for the signals that everything else has blocked. It may take locks and free memory, which a
// signal handler may not, wherever the other threads happen to be.
#include "cli/interrupt.h"

#include <pthread.h>
#include <signal.h>

#include <system_error>
#include <thread>

#include "runtime/files/atomic_file.h"

namespace vicinal::cli {
namespace {

// The signals that would end this process; whoever started it may have had some ignored, as nohup does.
sigset_t ending_signals() {
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action;
    if (::sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_DFL)
      ::sigaddset(&signals, signal);
  }
  return signals;
}

void wait_and_end(const sigset_t& signals) {
  int signal = 0;
  if (::sigwait(&signals, &signal) != 0) return;
  files::abandon_temporaries();
  // By the signal itself: a shell that runs a loop of commands stops the loop only then.
  ::pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  ::raise(signal);
}

}  // namespace

void clean_up_on_interrupt() {
  const sigset_t signals = ending_signals();
  sigset_t before;
  if (::pthread_sigmask(SIG_BLOCK, &signals, &before) != 0) return;
  try {
    files::remember_temporaries();
    std::thread(wait_and_end, signals).detach();
  } catch (const std::system_error&) {  // no thread: better a file left behind than a deaf command
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
}

}  // namespace vicinal::cli
