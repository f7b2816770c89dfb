/*
 * The lab guest's only program (PID 1 of its initramfs).
 *
 * It says `tick <counter> <uptime_us>` on the serial console, to every TCP client too, and does what words of the
 * kernel command line ask for (tests/lab/guest.py writes them):
 *
 *   vm.tick_us=5000     interval of the ticks
 *   vm.fill_mib=0       memory filled with incompressible data; it says `filled <mib>` when done
 *   vm.dirty_mib_s=0    memory pages changed each second, in MiB (of the filled ones, else of as many as a second's)
 *   vm.write_kib_s=0    blocks written to /dev/vda each second, in KiB; it says `wrote <sequence>` after each
 *                       and reads an older one
 *   vm.write_stop=0     stop writing after so many blocks, and read them again and again instead, as many each second as
 *                       were written; it says `verified <pass> <blocks>` after each pass, and `corrupt …` for a block
 *                       that does not hold what was written to it last
 *   vm.ip=              address of eth0, in a /16; a TCP server listens on port 7777
 *   vm.agent=0          answer as a guest agent does: guest-sync, and guest-ping with whatever else is asked
 *   vm.agent_s=0        until so many seconds after the kernel's start, and say nothing any more from then on
 *   vm.poweroff_s=0     switch off by itself, so many seconds after the kernel's start
 *   vm.button=0         switch off when the power button is pressed, after so many milliseconds
 *
 * A block of 4 KiB on the disk holds a magic number, its own index, and then its sequence number in every word, so that
 * an image can be checked from outside: block i of n holds a sequence number that is i modulo n.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/input.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
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
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096
#define MAGIC 0x3152524546564d56ULL /* "VMVFERR1" as bytes */
#define MAX_CLIENTS 16
#define SLICES_PER_S 50

static char words[4096]; /* the kernel command line, between blanks */

static const char *text_option(const char *name)
{
    static char value[64];
    const char *found = strstr(words, name);
    return found && sscanf(found + strlen(name), "%63[^ \n]", value) == 1 ? value : NULL;
}

static long option(const char *name, long otherwise)
{
    const char *text = text_option(name);
    return text ? strtol(text, NULL, 10) : otherwise;
}

static void read_words(void)
{
    int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    words[0] = ' ';
    if (fd < 0 || read(fd, words + 1, sizeof words - 2) < 0) printf("/proc/cmdline: %s\n", strerror(errno));
    close(fd);
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

static void load_modules(void)
{
    FILE *order = fopen("/modules/order", "re");
    char name[100], path[120];
    while (order && fscanf(order, "%99s", name) == 1) {
        snprintf(path, sizeof path, "/modules/%s", name);
        if (!strcmp(name, "virtio_console.ko") && !option("vm.agent=", 0)) continue;
        if ((!strcmp(name, "button.ko") || !strcmp(name, "evdev.ko")) && !option("vm.button=", 0)) continue;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) != 0) printf("module %s: %s\n", name, strerror(errno));
        if (fd >= 0) close(fd);
        unlink(path); /* its memory is wanted back */
    }
    if (order) fclose(order);
}

/* The serial port as it is: no line feed is turned into two characters. */
static int open_console(void)
{
    int fd = open("/dev/ttyS0", O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct termios raw;
    if (fd < 0) return STDOUT_FILENO;
    if (tcgetattr(fd, &raw) == 0) {
        cfmakeraw(&raw);
        tcsetattr(fd, TCSANOW, &raw);
    }
    return fd;
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
    in->sin_addr.s_addr = htonl(0xffff0000);
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
    setpriority(PRIO_PROCESS, 0, 5);
    uint64_t *memory = aligned_alloc(BLOCK, mib << 20);
    if (!memory) { printf("no memory for %zu MiB\n", mib); return; }
    fill_random(memory, (mib << 20) / 8);
    dprintf(console, "filled %zu\n", mib);
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

/* Says so when block `index` does not hold what was written to it last, `written` blocks having been written in all. */
static void check_block(int fd, int console, uint64_t *block, uint64_t index, uint64_t blocks, uint64_t written)
{
    uint64_t expected = index + (written - 1 - index) / blocks * blocks;
    memset(block, 0xff, BLOCK);
    if (pread(fd, block, BLOCK, (off_t)(index * BLOCK)) != BLOCK) {
        dprintf(console, "corrupt %lu cannot be read: %s\n", (unsigned long)index, strerror(errno));
        return;
    }
    for (int i = 0; i < BLOCK / 8; i++) {
        uint64_t wanted = i == 0 ? MAGIC : i == 1 ? index : expected;
        if (block[i] == wanted) continue;
        dprintf(console, "corrupt %lu word %d is %lx instead of %lx\n", (unsigned long)index, i,
                (unsigned long)block[i], (unsigned long)wanted);
        return;
    }
}

static void verify_for_ever(int fd, int console, uint64_t *block, uint64_t blocks, uint64_t written, int64_t interval)
{
    uint64_t count = written < blocks ? written : blocks, pass = 0;
    for (;; pass++) {
        int64_t when = now_us();
        for (uint64_t index = 0; index < count; index++) {
            check_block(fd, console, block, index, blocks, written);
            when += interval;
            if (when > now_us() + 10000) sleep_until_us(when);
        }
        dprintf(console, "verified %lu %lu\n", (unsigned long)pass, (unsigned long)count);
        sleep_until_us(now_us() + 300000); /* other guests want to run as well */
    }
}

/* A child that writes the disk round and round, or to the end that was asked for. */
static void run_writer(int console, long kib_s)
{
    int fd = open("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC | (option("vm.write_stop=", 0) ? 0 : O_DSYNC));
    uint64_t size = 0, sequence = 0, *block = aligned_alloc(BLOCK, BLOCK), stop = (uint64_t)option("vm.write_stop=", 0);
    if (fd < 0 || ioctl(fd, BLKGETSIZE64, &size) || size < BLOCK) { printf("/dev/vda: %s\n", strerror(errno)); return; }
    uint64_t blocks = size / BLOCK;
    int64_t when = now_us(), interval = 4000000 / kib_s;
    for (; !stop || sequence < stop; sequence++) {
        for (int i = 2; i < BLOCK / 8; i++) block[i] = sequence;
        block[0] = MAGIC;
        block[1] = sequence % blocks;
        if (pwrite(fd, block, BLOCK, (off_t)(block[1] * BLOCK)) != BLOCK)
            dprintf(console, "write error %lu %s\n", (unsigned long)sequence, strerror(errno));
        else if (!stop || sequence + 1 == stop)
            dprintf(console, "wrote %lu\n", (unsigned long)sequence);
        if (!stop) check_block(fd, console, block, sequence * 7919 % (sequence < blocks ? sequence + 1 : blocks), blocks, sequence + 1);
        when += interval;
        if (when > now_us() + 10000) sleep_until_us(when);
    }
    verify_for_ever(fd, console, block, blocks, sequence, interval);
}

/* A child at the first port of the virtio serial device, of which libvirt then says that it is connected. */
static void run_agent(int console, long unused)
{
    char line[512], answer[64], name[32];
    size_t have = 0;
    int fd = -1;
    (void)unused;
    for (int tries = 0; fd < 0 && tries < 100; tries++) {
        for (int i = 0; i < 4 && fd < 0; i++) {
            snprintf(name, sizeof name, "/dev/vport%dp1", i);
            fd = open(name, O_RDWR | O_CLOEXEC);
        }
        if (fd < 0) sleep_until_us(now_us() + 50000);
    }
    if (fd < 0) { printf("agent: no port\n"); return; }
    dprintf(console, "agent %s\n", name);
    for (;;) {
        ssize_t got = read(fd, line + have, sizeof line - 1 - have);
        if (got <= 0) { sleep_until_us(now_us() + 50000); continue; } /* nobody at the other end */
        have += (size_t)got;
        line[have] = 0;
        for (char *end; (end = strchr(line, '\n')); memmove(line, end + 1, have + 1)) {
            *end = 0;
            int64_t silent = option("vm.agent_s=", 0) * 1000000;
            const char *id = strstr(line, "\"id\":");
            int length = strstr(line, "guest-sync") && id
                ? snprintf(answer, sizeof answer, "{\"return\": %lld}\n", strtoll(id + 5, NULL, 10))
                : snprintf(answer, sizeof answer, "{\"return\": {}}\n");
            if (silent && now_us() > silent) length = 0;
            if (write(fd, answer, (size_t)length) != length) printf("agent: %s\n", strerror(errno));
            have -= (size_t)(end + 1 - line);
        }
        if (have == sizeof line - 1) have = 0;
    }
}

/* A child at the input devices, one of which is the power button. */
static void run_button(int console, long after_ms)
{
    struct pollfd inputs[8];
    struct input_event event;
    int count = 0;
    char name[32];
    for (int tries = 0; count == 0 && tries < 100; tries++) {
        for (int i = 0; i < 8; i++) {
            snprintf(name, sizeof name, "/dev/input/event%d", i);
            int fd = open(name, O_RDONLY | O_CLOEXEC);
            if (fd >= 0) inputs[count++] = (struct pollfd){ .fd = fd, .events = POLLIN };
        }
        if (count == 0) sleep_until_us(now_us() + 50000);
    }
    dprintf(console, "button %d\n", count);
    while (count && poll(inputs, (nfds_t)count, -1) > 0) {
        for (int i = 0; i < count; i++) {
            if (!(inputs[i].revents & POLLIN) || read(inputs[i].fd, &event, sizeof event) != sizeof event) continue;
            if (event.type != EV_KEY || event.code != KEY_POWER || event.value != 1) continue;
            dprintf(console, "pressed\n");
            sleep_until_us(now_us() + after_ms * 1000);
            power_off();
        }
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

static void spawn(void (*work)(int, long), int console, long argument)
{
    if (fork() == 0) { work(console, argument); for (;;) pause(); }
}

static void memory_work(int console, long fill) { run_memory(console, fill, option("vm.dirty_mib_s=", 0)); }

int main(void)
{
    mkdir("/dev", 0755);
    mkdir("/proc", 0755);
    mount("none", "/dev", "devtmpfs", 0, "");
    mount("none", "/proc", "proc", 0, "");
    int standard = open("/dev/console", O_RDWR); /* an archive without device nodes gives init no descriptors */
    for (int fd = 0; standard >= 0 && fd < 3; fd++) dup2(standard, fd);
    read_words();
    setvbuf(stdout, NULL, _IONBF, 0);
    load_modules();
    int console = open_console(), server = -1;
    if (text_option("vm.ip=")) { configure_network(text_option("vm.ip=")); server = listen_tcp(); }
    if (option("vm.fill_mib=", 0) || option("vm.dirty_mib_s=", 0)) spawn(memory_work, console, option("vm.fill_mib=", 0));
    if (option("vm.button=", 0)) spawn(run_button, console, option("vm.button=", 0));
    if (option("vm.agent=", 0)) spawn(run_agent, console, 0);
    if (option("vm.write_kib_s=", 0)) spawn(run_writer, console, option("vm.write_kib_s=", 0));

    struct sched_param fifo = { .sched_priority = 1 };
    sched_setscheduler(0, SCHED_FIFO, &fifo);
    /* The counter is a count of intervals of the clock, not a variable: emulation (QEMU 7.2 with TCG) loses pages that
     * were written in the last 100 ms before the switch-over of a bandwidth-limited migration, and a variable in one of
     * them would go back, as if the machine had run twice. The clock is state of the CPU and goes on. */
    int64_t interval = option("vm.tick_us=", 5000), off_at = option("vm.poweroff_s=", 0) * 1000000;
    char line[64];
    for (;;) {
        sleep_until_us((now_us() / interval + 1) * interval);
        int64_t now = now_us();
        int length = snprintf(line, sizeof line, "tick %lld %lld\n", (long long)(now / interval), (long long)now);
        if (write(console, line, (size_t)length) != length) printf("console: %s\n", strerror(errno));
        if (server >= 0) { accept_clients(server); tell_clients(line, (size_t)length); }
        if (off_at && now >= off_at) power_off();
    }
}
