/* Let a program believe that it is 1970: LD_PRELOAD this. Only the calendar is wrong, timers are not. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>

static int real_clock_gettime(clockid_t clock, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    return real(clock, at);
}

/* A machine without a battery counts from 1970 when it starts, as its monotonic clock counts from 0. */
int clock_gettime(clockid_t clock, struct timespec *at) {
    return real_clock_gettime(clock == CLOCK_REALTIME ? CLOCK_MONOTONIC : clock, at);
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    real_clock_gettime(CLOCK_MONOTONIC, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    real_clock_gettime(CLOCK_MONOTONIC, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}
