/* Runs a program with faults in its system calls that strace can not inject, and that a preloaded library does not see, for
 * the journal's calls do not pass through libc. Never lies about bytes: what a call says it wrote was written.
 *
 *   faults cached PROGRAM ARGS...             opening with O_DIRECT fails: writes go through the page cache
 *   faults short COUNTS DIR PROGRAM ARGS...   writes to files below DIR are shortened or interrupted, by turns
 *
 * The process becomes PROGRAM; a child of it performs the shortened writes. COUNTS is a file that then holds an array of u64:
 * writes seen, interrupted, and shortened ones of pwritev, pwrite64, writev, write. Linux, 64 bits. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SEEN, INTERRUPTED, SHORTENED, COUNTS = SHORTENED + 4 };
static const int CALLS[] = {SYS_pwritev, SYS_pwrite64, SYS_writev, SYS_write};
enum { BLOCK = 4096, IOV_MOST = 1024 };

static void die(const char *what) {
    perror(what);
    exit(3);
}

static int install(struct sock_filter *filter, unsigned short len, unsigned flags) {
    struct sock_fprog program = {.len = len, .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) die("no_new_privs");
    long got = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    if (got < 0) die("seccomp");
    return (int)got;
}

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offsetof(struct seccomp_data, field))
#define ANSWER(action) BPF_STMT(BPF_RET | BPF_K, (action))

/* The flags' low half comes first on the little-endian machines that this runs on. */
static void refuse_direct_of(unsigned call, unsigned flags_at) {
    struct sock_filter filter[] = {
        LOAD(nr),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, flags_at),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_DIRECT, 0, 1),
        ANSWER(SECCOMP_RET_ERRNO | EINVAL),
        ANSWER(SECCOMP_RET_ALLOW),
    };
    install(filter, sizeof filter / sizeof *filter, 0);
}

static void refuse_direct(void) {
    refuse_direct_of(SYS_openat, offsetof(struct seccomp_data, args[2]));
#ifdef SYS_open
    refuse_direct_of(SYS_open, offsetof(struct seccomp_data, args[1]));
#endif
}

static int notify_of_writes(void) {
    struct sock_filter filter[] = {
        LOAD(nr),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALLS[0], 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALLS[1], 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALLS[2], 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALLS[3], 1, 0),
        ANSWER(SECCOMP_RET_ALLOW),
        ANSWER(SECCOMP_RET_USER_NOTIF),
    };
    return install(filter, sizeof filter / sizeof *filter, SECCOMP_FILTER_FLAG_NEW_LISTENER);
}

/* What a call was to write: pieces in the caller's memory, and where to; -1 is the file's own position. */
struct write {
    struct iovec pieces[IOV_MOST];
    unsigned long count;
    size_t total;
    long long at;
};

static int understand(const struct seccomp_notif *request, struct write *write) {
    const __u64 *args = request->data.args;
    int nr = request->data.nr, vectored = nr == SYS_pwritev || nr == SYS_writev;
    write->at = nr == SYS_pwritev || nr == SYS_pwrite64 ? (long long)args[3] : -1;
    write->count = vectored ? args[2] : 1;
    write->total = 0;
    if (write->count > IOV_MOST) return 0;
    write->pieces[0] = (struct iovec){(void *)(uintptr_t)args[1], args[2]};
    if (vectored) {
        size_t bytes = write->count * sizeof(struct iovec);
        struct iovec here = {write->pieces, bytes}, there = {(void *)(uintptr_t)args[1], bytes};
        if (process_vm_readv((pid_t)request->pid, &here, 1, &there, 1, 0) != (ssize_t)bytes) return 0;
    }
    for (unsigned long n = 0; n < write->count; n++) write->total += write->pieces[n].iov_len;
    return 1;
}

/* Writes the first bytes of a call with a descriptor of the same open file; what the call is to return. */
static long long perform(pid_t pid, int file, struct write *write, size_t bytes) {
    static char *buffer;
    static size_t room;
    if (bytes > room) {
        free(buffer);
        room = bytes;
        if (posix_memalign((void **)&buffer, BLOCK, room)) die("memory");
    }
    struct iovec here = {buffer, bytes};
    if (process_vm_readv(pid, &here, 1, write->pieces, write->count, 0) < (ssize_t)bytes) return -EFAULT;
    /* Not one of the calls that the filter, which this process inherits, would stop. */
    ssize_t written = pwritev2(file, &here, 1, write->at, 0);
    return written < 0 ? -errno : written;
}

/* O_DIRECT takes whole blocks only; other files get odd lengths. 0: can not be shortened. */
static size_t shortened(size_t total, int direct, uint64_t turn) {
    size_t bytes = total * (1 + turn * 5 % 7) / 8;
    return direct ? bytes / BLOCK * BLOCK : bytes;
}

static int is_below(pid_t pid, int file, const char *dir) {
    char link[64], path[4096] = "";
    snprintf(link, sizeof link, "/proc/%d/fd/%d", pid, file);
    size_t len = strlen(dir);
    return readlink(link, path, sizeof path - 1) > (ssize_t)len && !strncmp(path, dir, len) && path[len] == '/';
}

/* Lets the call go on as it is, or answers it. */
static void answer(const struct seccomp_notif *request, struct seccomp_notif_resp *response, pid_t daemon, const char *dir,
                   uint64_t *counts) {
    static struct write write;
    response->id = request->id;
    response->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    if (!is_below((pid_t)request->pid, (int)request->data.args[0], dir)) return;
    uint64_t turn = ++counts[SEEN];
    if (turn % 5 == 0) {
        counts[INTERRUPTED]++;
        response->flags = 0;
        response->error = -EINTR;
        return;
    }
    if (turn % 5 > 3 || !understand(request, &write)) return;
    int pidfd = (int)syscall(SYS_pidfd_open, daemon, 0);
    int file = (int)syscall(SYS_pidfd_getfd, pidfd, (int)request->data.args[0], 0);
    close(pidfd);
    if (file < 0) return;
    size_t bytes = shortened(write.total, fcntl(file, F_GETFL) & O_DIRECT, turn);
    if (bytes > 0) {
        long long result = perform((pid_t)request->pid, file, &write, bytes);
        response->flags = 0;
        response->error = result < 0 ? (int)result : 0;
        response->val = result < 0 ? 0 : result;
        for (int call = 0; call < 4 && result > 0; call++) counts[SHORTENED + call] += request->data.nr == CALLS[call];
    }
    close(file);
}

/* Ends with the program: the kernel kills it then. */
static void supervise(int listener, pid_t daemon, const char *dir, uint64_t *counts) {
    static struct seccomp_notif request;
    static struct seccomp_notif_resp response;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != daemon) exit(0);
    /* Whoever waits for the program's output to end waits for the program only. */
    for (int file = 0; file < 3; file++) close(file);
    for (;;) {
        memset(&request, 0, sizeof request);
        memset(&response, 0, sizeof response);
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request)) continue;
        answer(&request, &response, daemon, dir, counts);
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
    }
}

static void shorten(const char *file, const char *dir) {
    int open_file = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (open_file < 0 || ftruncate(open_file, COUNTS * sizeof(uint64_t))) die(file);
    uint64_t *counts = mmap(NULL, COUNTS * sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED, open_file, 0);
    if (counts == MAP_FAILED) die("mmap");
    pid_t daemon = getpid();
    int listener = notify_of_writes();
    pid_t child = fork();
    if (child < 0) die("fork");
    if (child == 0) supervise(listener, daemon, dir, counts);
    close(listener);
}

int main(int count, char **args) {
    int is_short = count > 4 && !strcmp(args[1], "short");
    if (!is_short && !(count > 2 && !strcmp(args[1], "cached"))) {
        fprintf(stderr, "see the head of faults.c\n");
        return 2;
    }
    if (is_short) shorten(args[2], args[3]);
    else refuse_direct();
    char **program = args + (is_short ? 4 : 2);
    execv(*program, program);
    die(*program);
}
