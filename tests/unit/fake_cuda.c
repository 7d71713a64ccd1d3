/* A constructed libcuda for tests: the functions that cuda_memory calls, on a made up board with 8 GB of which 6 are
 * free. By the environment variable FAKE_CUDA other machines and failures: "cap" (no block above 512 MB, as NvMap on
 * L4T 36.4.7), "none" (no device), "hang", "crash", "broken" (memory does not hold what is written).
 * Written from the documented interface, not from CUDA. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OUT_OF_MEMORY 2
#define NO_DEVICE 100
#define GB 1000000000ULL

static unsigned long long held;
static unsigned char pattern;
static struct { unsigned long long at, size; } blocks[64];

static int is(const char *mode) {
    const char *now = getenv("FAKE_CUDA");
    return now && strcmp(now, mode) == 0;
}

int cuInit(unsigned flags) {
    (void)flags;
    if (is("hang")) sleep(60);
    if (is("crash")) kill(getpid(), SIGKILL);
    return is("none") ? NO_DEVICE : 0;
}
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return index ? 101 : 0; }
int cuDeviceGetName(char *name, int size, int device) {
    (void)device;
    strncpy(name, "Orin (constructed)", (size_t)size - 1);
    return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; *context = &held; return 0; }
int cuCtxSetCurrent(void *context) { (void)context; return 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = 6 * GB - held; *total = 8 * GB; return 0; }
int cuMemAlloc_v2(unsigned long long *pointer, size_t size) {
    if (size > 6 * GB - held || (is("cap") && size > GB / 2)) return OUT_OF_MEMORY;
    for (unsigned i = 0; i < 64; i++)
        if (!blocks[i].size) {
            blocks[i].size = size;
            blocks[i].at = *pointer = (i + 1ULL) << 36;
            held += size;
            return 0;
        }
    return OUT_OF_MEMORY;
}
int cuMemFree_v2(unsigned long long pointer) {
    for (unsigned i = 0; i < 64; i++)
        if (blocks[i].size && blocks[i].at == pointer) {
            held -= blocks[i].size;
            blocks[i].size = 0;
            return 0;
        }
    return 1;
}
int cuMemsetD8_v2(unsigned long long pointer, unsigned char value, size_t size) {
    (void)pointer;
    (void)size;
    pattern = value;
    return 0;
}
int cuMemcpyDtoH_v2(unsigned char *to, unsigned long long from, size_t size) {
    (void)from;
    (void)size;
    *to = is("broken") ? 0 : pattern;
    return 0;
}
int cuGetErrorName(int code, const char **name) {
    *name = code == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : code == NO_DEVICE ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR";
    return 0;
}
