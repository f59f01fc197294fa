#include "runtime/cuda/nvrtc_compiler.h"

#include <fmt/format.h>

#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "compiler/support/hash.h"

namespace vicinal::cuda {
namespace {

// NVRTC writes the program's name into symbols, so that it is a constant.
constexpr const char* kProgramName = "vicinal.cu";

// Kept out of the way where the library knows them: the folder of the source is no include path, and NVRTC's
// own disk cache neither answers nor grows, since kernels have a cache of ours.
constexpr const char* kOptional[] = {"--no-source-include", "--no-cache"};

class Program {
 public:
  static Result<Program> create(const NvrtcApi& api, const CompileRequest& request) {
    std::vector<const char*> names, texts;
    for (const HeaderText& header : request.headers) {
      names.push_back(header.name.c_str());
      texts.push_back(header.text.c_str());
    }
    Program program(api);
    const int status = api.create_program.address(&program.handle_, request.source.c_str(), kProgramName,
                                                  static_cast<int>(names.size()), texts.data(), names.data());
    if (status != kNvrtcSuccess) return program.failed("nvrtcCreateProgram", request, status);
    return program;
  }

  Program(Program&& other) noexcept : api_(other.api_), handle_(std::exchange(other.handle_, nullptr)) {}
  Program& operator=(Program&&) = delete;
  ~Program() {
    if (handle_ != nullptr) (void)api_.destroy_program.address(&handle_);
  }

  int compile(const std::vector<std::string>& options) {
    std::vector<const char*> words;
    for (const std::string& option : options) words.push_back(option.c_str());
    return api_.compile_program.address(handle_, static_cast<int>(words.size()), words.data());
  }

  // One of the program's results: its size comes from one function and its bytes from another.
  template <class Bytes, class Size, class Get>
  Result<Bytes> get(const Size& size_of, const Get& bytes_of, const CompileRequest& request) const {
    std::size_t size = 0;
    if (const int status = size_of.address(handle_, &size)) return failed(size_of.symbol, request, status);
    Bytes bytes(size, {});
    if (size == 0) return bytes;
    const int status = bytes_of.address(handle_, reinterpret_cast<char*>(bytes.data()));
    if (status != kNvrtcSuccess) return failed(bytes_of.symbol, request, status);
    return bytes;
  }

  // Text results end with a NUL that is counted.
  template <class Size, class Get>
  Result<std::string> get_text(const Size& size_of, const Get& bytes_of,
                               const CompileRequest& request) const {
    VICINAL_TRY(std::string text, get<std::string>(size_of, bytes_of, request));
    while (!text.empty() && text.back() == '\0') text.pop_back();
    return text;
  }

  Unexpected failed(const char* call, const CompileRequest& request, int status,
                    const std::string& log = {}) const {
    const std::string message =
        fmt::format("{} failed for kernel {} on {}: {}{}{}", call, request.entry, request.arch,
                    api_.error_string(status), log.empty() ? "" : "\n", log);
    // The two that are not about our text: an architecture this NVRTC does not know, and a torn installation.
    if (status == kNvrtcInvalidOption || status == kNvrtcBuiltinOperationFailure) {
      return unexpected(ErrorKind::environment, message,
                        fmt::format("install another NVRTC: {} is version {}.{}", api_.path.string(),
                                    api_.major, api_.minor));
    }
    return unexpected(ErrorKind::internal, message,
                      "this is a bug: please report it with the spec and the emitted source");
  }

 private:
  explicit Program(const NvrtcApi& api) : api_(api) {}
  const NvrtcApi& api_;
  ProgramHandle handle_ = nullptr;
};

Result<Compiled> compile_here(const NvrtcApi& api, const std::vector<std::string>& fixed,
                              const CompileRequest& request) {
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::string> options = fixed;
  options.insert(options.end(), request.options.begin(), request.options.end());

  VICINAL_TRY(Program program, Program::create(api, request));
  const int status = program.compile(options);
  VICINAL_TRY(std::string log, program.get_text(api.log_size, api.log, request));
  if (status != kNvrtcSuccess) return program.failed("nvrtcCompileProgram", request, status, log);

  Compiled result;
  VICINAL_TRY(result.cubin, program.get<std::vector<std::byte>>(api.cubin_size, api.cubin, request));
  if (request.ptx) {
    VICINAL_TRY(result.ptx, program.get_text(api.ptx_size, api.ptx, request));
  }
  result.log = std::move(log);
  result.milliseconds =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  return result;
}

// The optional options that a library accepts, found by compiling an empty program with each.
const std::vector<std::string>& accepted_options(const NvrtcApi& api) {
  static std::mutex mutex;
  static auto& known = *new std::map<const NvrtcApi*, std::vector<std::string>>;
  const std::lock_guard lock(mutex);
  const auto [it, fresh] = known.try_emplace(&api);
  if (!fresh) return it->second;
  for (const char* option : kOptional) {
    const CompileRequest empty;
    if (auto program = Program::create(api, empty); program && program->compile({option}) == kNvrtcSuccess) {
      it->second.push_back(option);
    }
  }
  return it->second;
}

}  // namespace

Result<NvrtcCompiler> NvrtcCompiler::open(const std::filesystem::path& path) {
  VICINAL_TRY(const NvrtcApi* api, nvrtc(path));
  return NvrtcCompiler(*api);
}

Result<std::string> NvrtcCompiler::digest() const {
  static std::mutex mutex;
  static std::map<const NvrtcApi*, Result<std::string>> digests;
  const std::lock_guard lock(mutex);
  if (const auto it = digests.find(api_); it != digests.end()) return it->second;

  Result<std::string> result = host::library_identity(api_->path);
  // Device functions come from the builtins beside it.
  const std::filesystem::path builtins = api_->builtins();
  if (std::error_code error; result && std::filesystem::exists(builtins, error)) {
    if (const auto second = host::library_identity(builtins)) result = support::sha256_hex(*result + *second);
  }
  return digests.emplace(api_, std::move(result)).first->second;
}

Result<std::vector<int>> NvrtcCompiler::supported_archs() const {
  int count = 0;
  int status = api_->arch_count.address(&count);
  std::vector<int> archs(static_cast<std::size_t>(count));
  if (status == kNvrtcSuccess) status = api_->archs.address(archs.data());
  if (status == kNvrtcSuccess) return archs;
  return unexpected(ErrorKind::environment, fmt::format("{} does not name its architectures: {}",
                                                        api_->path.string(), api_->error_string(status)));
}

std::vector<std::string> NvrtcCompiler::fixed_options(const std::string& arch) const {
  std::vector<std::string> options = {"--std=c++20", "--device-as-default-execution-space",
                                      "--gpu-architecture=" + arch};
  const std::vector<std::string>& accepted = accepted_options(*api_);
  options.insert(options.end(), accepted.begin(), accepted.end());
  return options;
}

Result<Compiled> NvrtcCompiler::compile(const CompileRequest& request) const {
  const std::vector<std::string> fixed = fixed_options(request.arch);
  if (request.time_limit.count() == 0) return compile_here(*api_, fixed, request);

  // The thread owns a copy of everything, since it may outlive this call.
  std::promise<Result<Compiled>> promise;
  std::future<Result<Compiled>> future = promise.get_future();
  std::thread([api = api_, fixed, request, promise = std::move(promise)]() mutable {
    promise.set_value(compile_here(*api, fixed, request));
  }).detach();
  if (future.wait_for(request.time_limit) == std::future_status::ready) return future.get();
  return unexpected(ErrorKind::limit,
                    fmt::format("compiling kernel {} for {} took longer than {} s", request.entry,
                                request.arch, static_cast<double>(request.time_limit.count()) / 1000.0),
                    "raise the compile time limit, or make the spec's expressions smaller");
}

}  // namespace vicinal::cuda
