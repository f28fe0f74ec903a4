/* main.cu - every planted bug must be caught, under each schedule of threads and copies that is
 * tried: by the report that names it or, where nothing but the numbers can tell, by its result;
 * without the bug the same kernel must be clean and right. */
#include "bugs.h"
#include <cstdio>
#include <cstring>

static int failures;

static void say(const Case &c, const char *what, const char *report)
{
    printf("FAILED %s: %s: %s\n", c.name, what, *report ? report : "no report");
    failures++;
}

static bool named(const Case &c, const char *report)
{
    for (const char *finding : c.finding)
        if (finding && strstr(report, finding)) return true;
    return false;
}

static void check(const Case &c)
{
    hostcuda_clear();
    bool right = c.run(false);
    if (*hostcuda_report() || !right) say(c, "the right kernel", hostcuda_report());
    hostcuda_clear();
    right = c.run(true);
    const char *report = hostcuda_report();
    if (c.finding[0] ? !named(c, report) : right || *report) say(c, "not caught", report);
    hostcuda_clear();
    hostcuda_forgive();
}

int main()
{
    for (Cases cases : {ampere_cases(), hopper_cases()})
        for (int n = 0; n < cases.count; n++)
            for (int schedule = 0; schedule < 3; schedule++)
                for (int async = 0; async < 2; async++) {
                    hostcuda_set_schedule(schedule);
                    hostcuda_set_async(async);
                    check(cases.list[n]);
                }
    failures += runtime_checks();
    printf("%d failed\n", failures);
    return failures != 0;
}
