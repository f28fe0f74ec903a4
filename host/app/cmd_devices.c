/* cmd_devices.c - equipoise devices: what this machine offers to a run. */
#include "app/commands.h"
#include "app/options.h"
#include "exec/device.h"
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const Usage usage = {
    .command = "devices",
    .help = "Lists the processors and accelerators that study.device may name.",
};

/* Cores that this process may run on, which a batch system or a container may limit. */
static int usable_cores(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? (int)sysconf(_SC_NPROCESSORS_ONLN)
                                                  : CPU_COUNT(&set);
}

Status cmd_devices(App *app, int argc, char **argv)
{
    Options o;
    Device *cpu;
    TRY(options_parse(&o, &usage, argc, argv));
    if (o.helped) return OK;
    TRY(device_open(&cpu, "cpu", "fp32", 0, app->log));
    double memory_gib = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / (1 << 30);
    printf("%s; %d of %ld cores, %.1f GiB memory\n", device_text(cpu), usable_cores(),
           sysconf(_SC_NPROCESSORS_CONF), memory_gib);
    Text gpus = {0};
    device_list_gpus(&gpus);
    fputs(gpus.s, stdout);
    free(gpus.s);
    device_close(cpu);
    return OK;
}
