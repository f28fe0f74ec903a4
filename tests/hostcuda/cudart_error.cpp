/* cudart_error.cpp - the runtime's last error, ordered failures, names of errors. */
#include "cudart.h"
#include <cstdlib>

namespace hostcuda {

namespace {

struct Errors {
    cudaError_t last = cudaSuccess, for_good = cudaSuccess;
    std::string fail_name;
    int fail_in = 0;
    cudaError_t fail_with = cudaSuccess;

    Errors()
    {
        const char *order = getenv("HOSTCUDA_FAIL");
        const char *colon = order ? strchr(order, ':') : nullptr;
        if (!colon) return;
        fail_name.assign(order, colon);
        fail_in = atoi(colon + 1);
    }
};
Errors &errors()
{
    static Errors e;
    return e;
}

cudaError_t usual_error(const std::string &function)
{
    bool memory = function.find("Alloc") != std::string::npos
                  || function.find("Malloc") != std::string::npos
                  || function.find("Instantiate") != std::string::npos;
    return memory ? cudaErrorMemoryAllocation : cudaErrorUnknown;
}

struct ErrorName {
    cudaError_t code;
    const char *name, *text;
};
#define ERROR(code, text) {code, #code, text}
const ErrorName error_names[] = {
    ERROR(cudaSuccess, "no error"),
    ERROR(cudaErrorInvalidValue, "invalid argument"),
    ERROR(cudaErrorMemoryAllocation, "out of memory"),
    ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    ERROR(cudaErrorInvalidSymbol, "invalid device symbol"),
    ERROR(cudaErrorInsufficientDriver,
          "CUDA driver version is insufficient for CUDA runtime version"),
    ERROR(cudaErrorInvalidDeviceFunction, "invalid device function"),
    ERROR(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    ERROR(cudaErrorInvalidDevice, "invalid device ordinal"),
    ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    ERROR(cudaErrorNotReady, "device not ready"),
    ERROR(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    ERROR(cudaErrorLaunchFailure, "unspecified launch failure"),
    ERROR(cudaErrorNotSupported, "operation not supported"),
    ERROR(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    ERROR(cudaErrorStreamCaptureInvalidated,
          "operation failed due to a previous error during capture"),
    ERROR(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"),
    ERROR(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    ERROR(cudaErrorStreamCaptureImplicit,
          "operation would make the legacy stream depend on a capturing blocking stream"),
    ERROR(cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a "
                                  "capturing stream"),
    ERROR(cudaErrorUnknown, "unknown error"),
};

const ErrorName *name_of(cudaError_t code)
{
    for (const ErrorName &e : error_names)
        if (e.code == code) return &e;
    return nullptr;
}

} // namespace

cudaError_t failed(cudaError_t e)
{
    if (e != cudaSuccess) errors().last = e;
    return e;
}

cudaError_t failed_for_good(cudaError_t e)
{
    errors().for_good = e;
    return failed(e);
}

cudaError_t entering(const char *function)
{
    Errors &e = errors();
    if (e.fail_in > 0 && e.fail_name == function && --e.fail_in == 0)
        return failed(e.fail_with != cudaSuccess ? e.fail_with : usual_error(function));
    return e.for_good;
}

} // namespace hostcuda

using namespace hostcuda;

extern "C" {

void hostcuda_fail(const char *name, int nth, int error)
{
    errors().fail_name = name ? name : "";
    errors().fail_in = nth;
    errors().fail_with = (cudaError_t)error;
}

void hostcuda_forgive(void) { errors().last = errors().for_good = cudaSuccess; }

cudaError_t cudaGetLastError(void)
{
    cudaError_t e = errors().last;
    errors().last = errors().for_good;
    return e;
}

cudaError_t cudaPeekAtLastError(void) { return errors().last; }

/* A failed kernel is described by what the machine found. */
const char *cudaGetErrorString(cudaError_t e)
{
    bool finding = e == cudaErrorLaunchFailure || e == cudaErrorInvalidConfiguration;
    if (finding && *error_text()) return error_text();
    const ErrorName *name = name_of(e);
    return name ? name->text : "unrecognized error code";
}

const char *cudaGetErrorName(cudaError_t e)
{
    const ErrorName *name = name_of(e);
    return name ? name->name : "unrecognized error code";
}

} // extern "C"
