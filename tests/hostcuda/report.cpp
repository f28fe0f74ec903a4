/* report.cpp - settings, findings and counts: the part of the machine that tests see (hostcuda.h).
 */
#include "check.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cxxabi.h>

namespace hostcuda
{

Counts counts;

static long from_environment(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtol(text, nullptr, 10) : otherwise;
}

static Settings first_settings()
{
    Settings s = {};
    s.schedule = (int)from_environment("HOSTCUDA_SCHED", 0);
    s.async = (int)from_environment("HOSTCUDA_ASYNC", 0);
    s.seed = (uint64_t)from_environment("HOSTCUDA_SEED", 1);
    s.check = (int)from_environment("HOSTCUDA_CHECK", 1);
    s.stats = (int)from_environment("HOSTCUDA_STATS", 0);
    s.abort = from_environment("HOSTCUDA_ABORT", 0) != 0;
    return s;
}

Settings settings = first_settings();

namespace
{
struct Findings {
    std::string launch_error; /* of the launch that runs or ran last */
    std::string first;        /* since hostcuda_clear() */
    int n = 0;
} findings;

struct PrintAtExit {
    ~PrintAtExit()
    {
        if (settings.stats >= 2) hostcuda_print_stats();
    }
} print_at_exit;
} // namespace

/* "void scale<float>(float *, int)" and "_Z5scalePfi" become "scale<float>" and "scale". */
static std::string readable(const char *name)
{
    int status = 0;
    char *full = abi::__cxa_demangle(name, nullptr, nullptr, &status);
    std::string text = full ? full : name;
    free(full);
    if (text.compare(0, 5, "void ") == 0) text = text.substr(5);
    int depth = 0;
    for (size_t i = 0; i < text.size(); i++) {
        depth += text[i] == '<';
        depth -= text[i] == '>';
        if (text[i] == '(' && depth == 0 && i > 0 && text.compare(i, 11, "(anonymous ") != 0)
            return text.substr(0, i);
    }
    return text;
}

static const char *base_name(const char *file)
{
    const char *slash = strrchr(file ? file : "?", '/');
    return slash ? slash + 1 : file ? file : "?";
}

std::string place(At at)
{
    if (!at) return "?";
    std::string text = std::string(base_name(at->file)) + ":" + std::to_string(at->line);
    for (At a = at->caller; a; a = a->caller)
        text += std::string(" < ") + base_name(a->file) + ":" + std::to_string(a->line);
    return text;
}

static std::string person(const Thread &t)
{
    char text[160];
    const Index3 b = t.cta->ctaid;
    snprintf(text, sizeof text, " [block (%u,%u,%u) thread (%u,%u,%u), warp %d lane %d]", b.x, b.y,
             b.z, t.tid.x, t.tid.y, t.tid.z, t.warp->id, t.lane);
    return text;
}

static void keep(const std::string &text)
{
    if (findings.launch_error.empty()) findings.launch_error = text;
    if (findings.n++ == 0) findings.first = text;
    if (settings.abort) {
        fprintf(stderr, "%s\n", text.c_str());
        abort();
    }
}

static void record_list(At at, const Thread *thread, const char *format, va_list list)
{
    char message[1024];
    vsnprintf(message, sizeof message, format, list);
    std::string text = machine.kernel ? readable(machine.kernel->name) + ": " : "";
    if (at) text += place(at) + ": ";
    text += message;
    if (thread) text += person(*thread);
    keep(text);
}

void record(At at, const Thread *thread, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    record_list(at, thread, format, list);
    va_end(list);
}

void trap(At at, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    record_list(at, machine.current, format, list);
    va_end(list);
    stop_cluster();
}

cudaError_t launch_refused(cudaError_t code, const char *text)
{
    findings.launch_error.clear();
    keep(text);
    return code;
}

bool has_failed() { return !findings.launch_error.empty(); }
void clear_error() { findings.launch_error.clear(); }
const char *error_text() { return findings.launch_error.c_str(); }

} // namespace hostcuda

using namespace hostcuda;

extern "C" {

void hostcuda_set_schedule(int schedule) { settings.schedule = schedule; }
void hostcuda_set_async(int async) { settings.async = async; }
void hostcuda_set_seed(uint64_t seed) { settings.seed = seed; }
void hostcuda_set_check(int on) { settings.check = on; }
void hostcuda_set_stats(int on) { settings.stats = on; }

const char *hostcuda_report(void) { return findings.first.c_str(); }
int hostcuda_report_count(void) { return findings.n; }

void hostcuda_clear(void)
{
    findings = {};
    counts = {};
    stats_clear();
}

HostcudaCounts hostcuda_counts(void)
{
    return {counts.launches, counts.blocks, counts.threads, counts.switches, counts.mmas};
}
}
