/* Prints how fast this machine's time stamp counter runs, kHz. */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

struct moment { uint64_t ticks, ns; };

/* Clock and counter read together: of many tries the one that nothing came between. */
static struct moment now(void)
{
    struct moment best = { 0, 0 };
    uint64_t shortest = UINT64_MAX;
    for (int i = 0; i < 1000; i++) {
        struct timespec t;
        uint64_t before = __rdtsc();
        clock_gettime(CLOCK_MONOTONIC, &t);
        uint64_t after = __rdtsc();
        if (after - before >= shortest) continue;
        shortest = after - before;
        best = (struct moment){ before + shortest / 2, (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec };
    }
    return best;
}

int main(void)
{
    struct moment first = now();
    nanosleep(&(struct timespec){ .tv_nsec = 200000000 }, NULL);
    struct moment last = now();
    printf("%" PRIu64 "\n", (last.ticks - first.ticks) * 1000000 / (last.ns - first.ns));
    return 0;
}
