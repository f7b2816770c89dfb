/*
 * The lab guest's only program (PID 1 of its initramfs).
 *
 * It says `tick <counter> <uptime_us>` on the virtio console every tick_ms, to every TCP client too, and does what
 * the kernel command line asks for (the kernel hands unknown key=value words to init as its environment):
 *
 *   tick_ms=5          interval of the ticks
 *   fill_mib=0         memory filled with incompressible data, said by `filled <mib>` when done
 *   dirty_mib_s=0      memory pages changed each second, in MiB
 *   write_kib_s=0      blocks written to /dev/vda each second, in KiB; said by `wrote <sequence>` after each
 *   ip=, prefix=       address of eth0; a TCP server listens on port 7777
 *   poweroff_after_s=0 switch off by itself
 *
 * A block of 4 KiB on the disk holds the magic, its own index, the sequence number, and the sequence number again in
 * every other word: tests.lab.pattern checks it from outside.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/input.h>
#include <net/if.h>
#include <net/route.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096
#define MAGIC 0x3152524546564d56ULL /* "VMVFERR1" as bytes */
#define MAX_CLIENTS 16
#define SLICES_PER_S 50

static long option(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtol(text, NULL, 10) : otherwise;
}

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void sleep_until_us(int64_t when)
{
    struct timespec t = { when / 1000000, (when % 1000000) * 1000 };
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) { }
}

static void power_off(void)
{
    sync();
    reboot(RB_POWER_OFF);
    for (;;) pause();
}

/* Modules are named 00-name.ko, 01-name.ko …: the order in which they load. */
static int by_name(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

static void load_modules(void)
{
    struct dirent **names;
    int count = scandir("/modules", &names, NULL, by_name);
    char path[300];
    for (int i = 0; i < count; i++) {
        if (names[i]->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/modules/%s", names[i]->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) != 0)
            printf("module %s: %s\n", path, strerror(errno));
        if (fd >= 0) close(fd);
        unlink(path); /* the memory of the file is wanted back: the smaller the guest, the more of them */
    }
}

static int open_console(void)
{
    for (int i = 0; i < 200; i++) {
        int fd = open("/dev/hvc0", O_RDWR | O_NOCTTY | O_CLOEXEC);
        if (fd >= 0) return fd;
        usleep(10000);
    }
    return STDOUT_FILENO;
}

static void configure_network(const char *address)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct ifreq request = { 0 };
    struct sockaddr_in *in = (struct sockaddr_in *)&request.ifr_addr;
    strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP;
    ioctl(fd, SIOCSIFFLAGS, &request);
    strcpy(request.ifr_name, "eth0");
    in->sin_family = AF_INET;
    in->sin_addr.s_addr = inet_addr(address);
    if (ioctl(fd, SIOCSIFADDR, &request)) printf("eth0 address: %s\n", strerror(errno));
    in->sin_addr.s_addr = htonl(~0UL << (32 - option("prefix", 16)));
    ioctl(fd, SIOCSIFNETMASK, &request);
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(fd, SIOCSIFFLAGS, &request)) printf("eth0 up: %s\n", strerror(errno));
    close(fd);
}

static int listen_tcp(void)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(7777) };
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&here, sizeof here) || listen(fd, 8)) printf("listen: %s\n", strerror(errno));
    return fd;
}

static void fill_random(uint64_t *words, size_t count)
{
    uint64_t x = 88172645463325252ULL;
    for (size_t i = 0; i < count; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        words[i] = x | 1;
    }
}

/* A child that fills memory, then changes pages at the rate asked for. */
static void run_memory(int console, long fill_mib, long dirty_mib_s)
{
    size_t mib = fill_mib ? (size_t)fill_mib : (size_t)dirty_mib_s;
    char line[40];
    setpriority(PRIO_PROCESS, 0, 5);
    uint64_t *memory = aligned_alloc(BLOCK, mib << 20);
    if (!memory) { printf("no memory for %zu MiB\n", mib); return; }
    fill_random(memory, (mib << 20) / 8);
    dprintf(console, "filled %zu\n", mib);
    (void)line;
    if (!dirty_mib_s) for (;;) pause();
    size_t pages = mib << 8, next = 0, each = (size_t)dirty_mib_s * 256 / SLICES_PER_S;
    if (each == 0) each = 1;
    int64_t when = now_us();
    for (;;) {
        for (size_t i = 0; i < each; i++) {
            memory[next * (BLOCK / 8)] += 2;
            next = (next + 1) % pages;
        }
        when += 1000000 / SLICES_PER_S;
        sleep_until_us(when);
    }
}

/* A child that writes the disk round and round. */
static void run_writer(int console, long kib_s)
{
    int fd = open("/dev/vda", O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC);
    uint64_t size = 0, sequence = 0, *block = aligned_alloc(BLOCK, BLOCK);
    if (fd < 0 || ioctl(fd, BLKGETSIZE64, &size) || size < BLOCK) { printf("/dev/vda: %s\n", strerror(errno)); return; }
    uint64_t blocks = size / BLOCK;
    int64_t when = now_us(), interval = 4000000 / kib_s;
    for (;; sequence++) {
        for (int i = 2; i < BLOCK / 8; i++) block[i] = sequence;
        block[0] = MAGIC;
        block[1] = sequence % blocks;
        if (pwrite(fd, block, BLOCK, (off_t)(block[1] * BLOCK)) != BLOCK)
            dprintf(console, "write error %lu %s\n", (unsigned long)sequence, strerror(errno));
        else
            dprintf(console, "wrote %lu\n", (unsigned long)sequence);
        when += interval;
        sleep_until_us(when);
    }
}

static int clients[MAX_CLIENTS], client_count;

static void accept_clients(int server)
{
    int fd = accept4(server, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    if (client_count == MAX_CLIENTS) close(fd);
    else clients[client_count++] = fd;
}

static void tell_clients(const char *line, size_t length)
{
    for (int i = 0; i < client_count; i++) {
        if (send(clients[i], line, length, MSG_NOSIGNAL) >= 0 || errno == EAGAIN) continue;
        close(clients[i]);
        clients[i--] = clients[--client_count];
    }
}

static void check_power_button(int button)
{
    struct input_event event;
    while (button >= 0 && read(button, &event, sizeof event) == sizeof event)
        if (event.type == EV_KEY && event.code == KEY_POWER && event.value) power_off();
}

static void spawn(void (*work)(int, long), int console, long argument)
{
    if (fork() == 0) { work(console, argument); for (;;) pause(); }
}

static void memory_work(int console, long fill) { run_memory(console, fill, option("dirty_mib_s", 0)); }

int main(void)
{
    mount("none", "/dev", "devtmpfs", 0, "");
    setvbuf(stdout, NULL, _IONBF, 0);
    load_modules();
    int console = open_console(), server = -1;
    int button = open("/dev/input/event0", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (getenv("ip")) { configure_network(getenv("ip")); server = listen_tcp(); }
    if (option("fill_mib", 0) || option("dirty_mib_s", 0)) spawn(memory_work, console, option("fill_mib", 0));
    if (option("write_kib_s", 0)) spawn(run_writer, console, option("write_kib_s", 0));

    struct sched_param fifo = { .sched_priority = 1 };
    sched_setscheduler(0, SCHED_FIFO, &fifo);
    int64_t interval = option("tick_ms", 5) * 1000, when = now_us(), off_at = option("poweroff_after_s", 0) * 1000000;
    char line[64];
    for (uint64_t counter = 1;; counter++) {
        int length = snprintf(line, sizeof line, "tick %lu %lld\n", (unsigned long)counter, (long long)now_us());
        if (write(console, line, (size_t)length) != length) printf("console: %s\n", strerror(errno));
        if (server >= 0) { accept_clients(server); tell_clients(line, (size_t)length); }
        check_power_button(button);
        if (off_at && now_us() >= off_at) power_off();
        when += interval;
        if (when < now_us()) when = now_us(); /* late: go on from here, no burst */
        sleep_until_us(when);
    }
}
