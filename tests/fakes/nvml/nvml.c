/* A stand-in for libnvidia-ml.so.1, driven by a mapped file.
 *
 * Every process that loads it maps the file named by MOCK_NVML_STATE and answers NVML's
 * calls from it, so one test can steer what its child processes read. The layout is
 * tests/fakes/mock_nvml.py's; keep both equal (the magic number holds the sizes).
 *
 * Writers make `sequence` odd while they change something; readers copy a GPU and try
 * again if the sequence moved. Energy is the integral of a step function of power, kept as
 * change points, so it is exact however often power changes and whenever it is read.
 */
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { MAX_GPUS = 8, MAX_POINTS = 2048, MAX_PROCESSES = 16 };
enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3,
       INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15 };

typedef struct { double time_s, energy_j, power_w; } point_t;

typedef struct {
    char name[96], uuid[96];
    double power_limit_w, temperature_c, sm_clock_mhz, memory_clock_mhz;
    double tick_s, frozen_from_s, reset_at_s, offset_at_s, offset_j, lost_from_s;
    double stall_from_s, stall_until_s, power_gain, busy_percent;
    int64_t memory_total, memory_used, clock_event_reasons, mig, persistence, architecture;
    int64_t energy_error, power_error, processes_error, num_processes, pids[MAX_PROCESSES];
    int64_t nvlinks, socket, topology_error;
    int64_t num_points;
    point_t points[MAX_POINTS];
} gpu_t;

typedef struct {
    int64_t magic, sequence, init_error, num_gpus;
    double clock_s; /* NaN: the monotonic clock */
    char driver[80];
    gpu_t gpus[MAX_GPUS];
} state_t;

static volatile state_t *shared;
static char mapped[4096];

static int map_state(void)
{
    const char *path = getenv("MOCK_NVML_STATE");
    if (!path) return DRIVER_NOT_LOADED;
    if (shared && !strcmp(path, mapped)) return OK;
    int fd = open(path, O_RDONLY);
    if (fd < 0) return DRIVER_NOT_LOADED;
    void *at = mmap(NULL, sizeof(state_t), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED) return DRIVER_NOT_LOADED;
    if (((state_t *)at)->magic != (int64_t)(sizeof(state_t) * 100000 + sizeof(gpu_t))) {
        fprintf(stderr, "mock nvml: %s has another layout\n", path);
        abort();
    }
    shared = at;
    snprintf(mapped, sizeof mapped, "%s", path);
    return OK;
}

static double now_s(void)
{
    if (!isnan(shared->clock_s)) return shared->clock_s;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static gpu_t copy(int index)
{
    gpu_t gpu;
    for (int attempt = 0; attempt < 10000; attempt++) {
        int64_t before = __atomic_load_n(&shared->sequence, __ATOMIC_ACQUIRE);
        memcpy(&gpu, (const void *)&shared->gpus[index], sizeof gpu);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (!(before & 1) && before == __atomic_load_n(&shared->sequence, __ATOMIC_RELAXED))
            return gpu;
        usleep(100);
    }
    abort(); /* a writer died half way */
}

/* Joules drawn up to a time, from the last change point before it. */
static double energy_j(const gpu_t *gpu, double time_s)
{
    const point_t *at = &gpu->points[0];
    for (int64_t i = 1; i < gpu->num_points && gpu->points[i].time_s <= time_s; i++)
        at = &gpu->points[i];
    return at->energy_j + at->power_w * (time_s - at->time_s);
}

static double power_w(const gpu_t *gpu, double time_s)
{
    const point_t *at = &gpu->points[0];
    for (int64_t i = 1; i < gpu->num_points && gpu->points[i].time_s <= time_s; i++)
        at = &gpu->points[i];
    return at->power_w;
}

/* Handles are 1-based indices. Every device call comes through here. */
static int enter(void *handle, gpu_t *gpu)
{
    if (!shared) return UNINITIALIZED;
    intptr_t index = (intptr_t)handle - 1;
    if (index < 0 || index >= shared->num_gpus) return INVALID_ARGUMENT;
    *gpu = copy((int)index);
    return now_s() >= gpu->lost_from_s ? GPU_IS_LOST : OK;
}

#define ENTER(handle) gpu_t gpu; int entered = enter(handle, &gpu); if (entered) return entered
#define UNLESS(known) if (!(known)) return NOT_SUPPORTED

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    int rc = map_state();
    return rc ? rc : (int)shared->init_error;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { (void)code; return "mock NVML error"; }

int nvmlSystemGetDriverVersion(char *text, unsigned size)
{
    snprintf(text, size, "%s", (const char *)shared->driver);
    return OK;
}
int nvmlSystemGetNVMLVersion(char *text, unsigned size)
{
    snprintf(text, size, "13.%s", (const char *)shared->driver);
    return OK;
}
int nvmlDeviceGetCount_v2(unsigned *count) { *count = (unsigned)shared->num_gpus; return OK; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle)
{
    *handle = (void *)(intptr_t)(index + 1);
    ENTER(*handle);
    return OK;
}
int nvmlDeviceGetIndex(void *handle, unsigned *index)
{
    ENTER(handle);
    *index = (unsigned)((intptr_t)handle - 1);
    return OK;
}
int nvmlDeviceGetName(void *handle, char *text, unsigned size)
{
    ENTER(handle);
    snprintf(text, size, "%s", gpu.name);
    return OK;
}
int nvmlDeviceGetUUID(void *handle, char *text, unsigned size)
{
    ENTER(handle);
    snprintf(text, size, "%s", gpu.uuid);
    return OK;
}
int nvmlDeviceGetArchitecture(void *handle, unsigned *architecture)
{
    ENTER(handle);
    *architecture = (unsigned)gpu.architecture;
    return OK;
}
int nvmlDeviceGetMemoryInfo(void *handle, uint64_t *memory)
{
    ENTER(handle);
    memory[0] = (uint64_t)gpu.memory_total;
    memory[1] = (uint64_t)(gpu.memory_total - gpu.memory_used);
    memory[2] = (uint64_t)gpu.memory_used;
    return OK;
}
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *energy_mj)
{
    ENTER(handle);
    double now = now_s();
    if (now >= gpu.stall_from_s && now < gpu.stall_until_s) {
        usleep((useconds_t)((gpu.stall_until_s - now) * 1e6));
        now = now_s();
    }
    if (gpu.energy_error) return (int)gpu.energy_error;
    double until = now < gpu.frozen_from_s ? now : gpu.frozen_from_s;
    if (gpu.tick_s > 0) until = floor(until / gpu.tick_s) * gpu.tick_s;
    double joules = energy_j(&gpu, until);
    if (until >= gpu.reset_at_s) joules -= energy_j(&gpu, gpu.reset_at_s);
    if (until >= gpu.offset_at_s) joules += gpu.offset_j;
    *energy_mj = joules > 0 ? (unsigned long long)(joules * 1000) : 0;
    return OK;
}
int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts)
{
    ENTER(handle);
    if (gpu.power_error) return (int)gpu.power_error;
    *milliwatts = (unsigned)(1000 * gpu.power_gain * power_w(&gpu, now_s()));
    return OK;
}
int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *milliwatts)
{
    ENTER(handle);
    UNLESS(gpu.power_limit_w > 0);
    *milliwatts = (unsigned)(1000 * gpu.power_limit_w);
    return OK;
}
int nvmlDeviceGetPowerManagementLimit(void *handle, unsigned *milliwatts)
{
    return nvmlDeviceGetEnforcedPowerLimit(handle, milliwatts);
}
int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *celsius)
{
    (void)sensor;
    ENTER(handle);
    UNLESS(!isnan(gpu.temperature_c));
    *celsius = (unsigned)gpu.temperature_c;
    return OK;
}
typedef struct { unsigned version; int sensor, celsius; } temperature_t;
int nvmlDeviceGetTemperatureV(void *handle, temperature_t *temperature)
{
    return nvmlDeviceGetTemperature(handle, 0, (unsigned *)&temperature->celsius);
}
int nvmlDeviceGetClockInfo(void *handle, int which, unsigned *megahertz)
{
    ENTER(handle);
    double clock = which == 2 ? gpu.memory_clock_mhz : gpu.sm_clock_mhz;
    UNLESS(!isnan(clock));
    *megahertz = (unsigned)clock;
    return OK;
}
int nvmlDeviceGetUtilizationRates(void *handle, unsigned *rates)
{
    ENTER(handle);
    UNLESS(!isnan(gpu.busy_percent));
    rates[0] = (unsigned)gpu.busy_percent;
    rates[1] = 0;
    return OK;
}
int nvmlDeviceGetCurrentClocksEventReasons(void *handle, unsigned long long *reasons)
{
    ENTER(handle);
    UNLESS(gpu.clock_event_reasons >= 0);
    *reasons = (unsigned long long)gpu.clock_event_reasons;
    return OK;
}
int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending)
{
    ENTER(handle);
    UNLESS(gpu.mig >= 0);
    *current = *pending = (unsigned)gpu.mig;
    return OK;
}
int nvmlDeviceGetPersistenceMode(void *handle, unsigned *mode)
{
    ENTER(handle);
    UNLESS(gpu.persistence >= 0);
    *mode = (unsigned)gpu.persistence;
    return OK;
}
int nvmlDeviceGetEccMode(void *handle, unsigned *current, unsigned *pending)
{
    ENTER(handle);
    *current = *pending = 1;
    return OK;
}
int nvmlDeviceGetTopologyCommonAncestor(void *handle, void *other, int *level)
{
    ENTER(handle);
    if (gpu.topology_error) return (int)gpu.topology_error;
    gpu_t second;
    int rc = enter(other, &second);
    if (rc) return rc;
    *level = gpu.socket == second.socket ? 30 : 50; /* host bridge or system */
    return OK;
}
int nvmlDeviceGetP2PStatus(void *handle, void *other, int index, int *status)
{
    ENTER(handle);
    if (gpu.topology_error) return (int)gpu.topology_error;
    gpu_t second;
    int rc = enter(other, &second);
    if (rc) return rc;
    *status = index == 2 && gpu.nvlinks && second.nvlinks ? 0 : 5; /* OK or not supported */
    return OK;
}
int nvmlDeviceGetNvLinkState(void *handle, unsigned link, int *state)
{
    ENTER(handle);
    if (link >= 18) return INVALID_ARGUMENT;
    *state = link < gpu.nvlinks;
    return OK;
}
int nvmlDeviceGetC2cModeInfoV(void *handle, void *info)
{
    (void)info;
    ENTER(handle);
    return NOT_SUPPORTED; /* no Grace Hopper */
}

typedef struct { unsigned pid; unsigned long long memory; unsigned gi, ci; } process_t;
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, process_t *found)
{
    ENTER(handle);
    if (gpu.processes_error) return (int)gpu.processes_error;
    unsigned room = *count;
    *count = (unsigned)gpu.num_processes;
    if (!found || room < *count) return *count ? INSUFFICIENT_SIZE : OK;
    for (unsigned i = 0; i < *count; i++)
        found[i] = (process_t){(unsigned)gpu.pids[i], 1 << 30, ~0u, ~0u};
    return OK;
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *count, process_t *found)
{
    (void)found;
    ENTER(handle);
    *count = 0;
    return OK;
}

typedef struct {
    uint32_t field, scope;
    int64_t timestamp, latency;
    unsigned type;
    int rc;
    union { unsigned ui; unsigned long long ull; double d; } value;
} field_t;
int nvmlDeviceGetFieldValues(void *handle, int count, field_t *fields)
{
    ENTER(handle);
    for (int i = 0; i < count; i++) {
        int is_power = fields[i].field == 185 || fields[i].field == 186;
        fields[i].rc = is_power ? OK : NOT_SUPPORTED;
        fields[i].value.ui = (unsigned)(1000 * gpu.power_gain * power_w(&gpu, now_s()));
    }
    return OK;
}
