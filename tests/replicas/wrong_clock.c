/* A clock that can be set without setting the machine's: for a server that is started with it in LD_PRELOAD. By how
   many seconds it is wrong stands in the file that WRONG_CLOCK names, and may be changed at any time. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long wrong(void)
{
    static int file = -1;
    char text[32] = {0};
    if (file < 0) {
        const char *name = getenv("WRONG_CLOCK");
        if (name == NULL || (file = open(name, O_RDONLY | O_CLOEXEC)) < 0)
            return 0;
    }
    return pread(file, text, sizeof text - 1, 0) > 0 ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int done = (int)syscall(SYS_clock_gettime, clock, now);
    if (done == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += wrong();
    return done;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec precise;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &precise) != 0)
        return -1;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out)
{
    struct timeval now;
    gettimeofday(&now, NULL);
    if (out != NULL)
        *out = now.tv_sec;
    return now.tv_sec;
}
