/* A constructed NVML for tests: the functions that gpu_nvml calls, with the values of the captured H100
 * (tests/golden/h100) and, by the environment variable FAKE_NVML, other machines and failures:
 * geforce, mig, two, none, lost, broken, hang, crash, or a number, which nvmlInit_v2 returns.
 * Built with -DOLD it lacks what drivers before 470 lack. Written from the documented interface, not from NVML. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NOT_SUPPORTED 3
#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7
#define GPU_IS_LOST 15
#define UNKNOWN 999
#define MIB (1024ULL * 1024ULL)

typedef struct { char legacy[16]; unsigned domain, bus, device, device_id, subsystem; char bus_id[32]; } Pci;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } MemoryV2;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } Process;

static int is(const char *mode) {
    const char *now = getenv("FAKE_NVML");
    return now && strcmp(now, mode) == 0;
}
static int put(char *to, unsigned size, const char *text) {
    if (size <= strlen(text)) return INSUFFICIENT_SIZE;
    strcpy(to, text);
    return 0;
}
static int number(unsigned *to, unsigned value) { *to = value; return 0; }
/* Handles are 1 and 2 for GPUs, 11 and up for MIG instances. */
static long id(void *device) { return (long)device; }

int nvmlInit_v2(void) {
    const char *now = getenv("FAKE_NVML");
    if (is("hang")) sleep(60);
    if (is("crash")) kill(getpid(), SIGKILL);
    return now ? atoi(now) : 0;
}
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *to, unsigned size) { return put(to, size, "580.159.04"); }
#ifndef OLD
int nvmlSystemGetCudaDriverVersion_v2(int *to) { *to = 13000; return 0; }
#endif
int nvmlSystemGetCudaDriverVersion(int *to) { *to = 13000; return 0; }
int nvmlDeviceGetCount_v2(unsigned *to) { return number(to, is("none") ? 0 : is("two") || is("lost") ? 2 : 1); }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **to) {
    if (is("lost") && index == 1) return GPU_IS_LOST;
    *to = (void *)(long)(index + 1);
    return 0;
}
int nvmlDeviceGetName(void *device, char *to, unsigned size) {
    (void)device;
    return put(to, size, is("geforce") ? "NVIDIA GeForce RTX 5070 Ti" : "NVIDIA H100 80GB HBM3");
}
int nvmlDeviceGetUUID(void *device, char *to, unsigned size) {
    return put(to, size, id(device) == 2 ? "GPU-00000000-0000-0000-0000-000000000001"
                                         : "GPU-00000000-0000-0000-0000-000000000000");
}
int nvmlDeviceGetVbiosVersion(void *device, char *to, unsigned size) {
    (void)device;
    return put(to, size, "96.00.DA.00.0C");
}
static int pci(void *device, Pci *to, int with_address) {
    unsigned slot = id(device) == 2 ? 7 : 6;
    memset(to, 0, sizeof *to);
    to->device = slot;
    to->device_id = is("geforce") ? 0x2c0510de : 0x233010de;
    if (with_address) snprintf(to->bus_id, sizeof to->bus_id, "00000000:00:%02X.0", slot);
    return 0;
}
#ifndef OLD
int nvmlDeviceGetPciInfo_v3(void *device, Pci *to) { return pci(device, to, 1); }
int nvmlDeviceGetMemoryInfo_v2(void *device, MemoryV2 *to) {
    if (to->version != (sizeof(MemoryV2) | 2 << 24)) return 25;
    if (id(device) > 10) {
        to->total = 9856 * MIB; to->reserved = 0; to->free = 9844 * MIB; to->used = 12 * MIB;
        return 0;
    }
    to->total = is("geforce") ? 16303 * MIB : 81559 * MIB;
    to->reserved = 480 * MIB;
    to->used = 0;
    to->free = to->total - to->reserved;
    return 0;
}
int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *to) {
    (void)device;
    if (is("broken")) return UNKNOWN;
    *to = is("two") ? 0x24 : 0x1;
    return 0;
}
int nvmlDeviceGetArchitecture(void *device, unsigned *to) { (void)device; return number(to, is("geforce") ? 10 : 9); }
#endif
int nvmlDeviceGetPciInfo_v2(void *device, Pci *to) { return pci(device, to, 0); }
int nvmlDeviceGetMemoryInfo(void *device, Memory *to) {
    (void)device;
    to->total = 81559 * MIB; to->used = 480 * MIB; to->free = 81079 * MIB;
    return 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *to) {
    (void)device;
    *to = 0x1;
    return 0;
}
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    (void)device;
    *major = is("geforce") ? 12 : 9; *minor = 0;
    return 0;
}
int nvmlDeviceGetVirtualizationMode(void *device, unsigned *to) { (void)device; return number(to, is("geforce") ? 0 : 1); }
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *to) { (void)device; return number(to, 700000); }
int nvmlDeviceGetPowerManagementLimitConstraints(void *device, unsigned *low, unsigned *high) {
    (void)device;
    *low = 200000; *high = 700000;
    return 0;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *to) { (void)device; return number(to, 72510); }
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *to) {
    (void)device;
    if (is("broken")) return GPU_IS_LOST;
    return sensor ? 2 : number(to, 38);
}
int nvmlDeviceGetClockInfo(void *device, int kind, unsigned *to) { (void)device; return number(to, kind == 1 ? 345 : 2619); }
int nvmlDeviceGetMaxClockInfo(void *device, int kind, unsigned *to) { (void)device; return number(to, kind == 1 ? 1980 : 2619); }
int nvmlDeviceGetCurrPcieLinkGeneration(void *device, unsigned *to) { (void)device; return number(to, 5); }
int nvmlDeviceGetMaxPcieLinkGeneration(void *device, unsigned *to) { (void)device; return number(to, 5); }
int nvmlDeviceGetCurrPcieLinkWidth(void *device, unsigned *to) { (void)device; return number(to, 16); }
int nvmlDeviceGetMaxPcieLinkWidth(void *device, unsigned *to) { (void)device; return number(to, 16); }
int nvmlDeviceGetEccMode(void *device, unsigned *now, unsigned *next) {
    (void)device;
    if (is("geforce")) return NOT_SUPPORTED;
    *now = *next = 1;
    return 0;
}
int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *next) {
    (void)device;
    if (is("geforce")) return NOT_SUPPORTED;
    *now = *next = is("mig");
    return 0;
}
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *to) { (void)device; return number(to, 7); }
int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **to) {
    (void)device;
    if (index != 0 && index != 2) return NOT_FOUND;
    *to = (void *)(long)(11 + index);
    return 0;
}
int nvmlDeviceGetGpuInstanceId(void *device, unsigned *to) { return number(to, (unsigned)id(device) - 4); }
int nvmlDeviceGetComputeInstanceId(void *device, unsigned *to) { (void)device; return number(to, 0); }
int nvmlDeviceGetPersistenceMode(void *device, unsigned *to) { (void)device; return number(to, !is("geforce")); }
int nvmlDeviceGetComputeRunningProcesses_v2(void *device, unsigned *count, Process *rows) {
    (void)device;
    if (!is("two")) { *count = 0; return 0; }
    if (*count < 1 || !rows) { *count = 1; return INSUFFICIENT_SIZE; }
    *count = 1;
    rows[0].pid = 4242; rows[0].used = 1024 * MIB; rows[0].gi = rows[0].ci = 0xffffffffu;
    return 0;
}
#ifndef OLD
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, Process *rows) {
    return nvmlDeviceGetComputeRunningProcesses_v2(device, count, rows);
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, Process *rows) {
    (void)device; (void)rows;
    *count = 0;
    return 0;
}
#endif
int nvmlSystemGetProcessName(unsigned pid, char *to, unsigned size) {
    return pid == 4242 ? put(to, size, "/usr/bin/llama-server") : NOT_FOUND;
}
