/* Counts the file operations below one directory, and makes one of them fail, or logs them all.

   Compiled by faults.py and loaded with LD_PRELOAD. torture_arm(number, act, directory, log) begins. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { COUNT, KILL_BEFORE, KILL_AFTER, TORN, EIO_ONCE, ENOSPC_ONCE, ENOSPC_ON, LOG };

static long at = -1, done = 0;
static int act = -1, log_fd = -1, inside = 0;
static char root[4096];
#define REAL(name) static __typeof__(&name) real = 0; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

long torture_arm(long number, int what, const char *directory, const char *log) {
    strncpy(root, directory, sizeof root - 1);
    if (log && *log) log_fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    at = number; done = 0; act = what;
    return 0;
}
long torture_done(void) { return done; }

static ssize_t raw(const void *data, size_t size) {
    static ssize_t (*real)(int, const void *, size_t) = 0;
    if (!real) real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    return real(log_fd, data, size);
}
static void record(const char *op, const char *path, const char *other, long offset, const void *data, long size) {
    if (act != LOG || log_fd < 0) return;
    char line[9000];
    int length = snprintf(line, sizeof line, "%s\t%s\t%s\t%ld\t%ld\n", op, path, other, offset, size);
    raw(line, length);
    if (data && size) raw(data, size);
}
void torture_mark(long number) { record("mark", "", "", number, 0, 0); }

static int ours(const char *path) { return act >= 0 && !inside && strncmp(path, root, strlen(root)) == 0; }
static int fd_path(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0) return 0;
    path[length] = 0;
    char *gone = strstr(path, " (deleted)");
    return !gone && !strstr(path, "-shm") && ours(path);
}
/* 0: go on; 1: fail with errno; 2: write a half and die; 3: die afterwards */
static int step(int is_write) {
    long number = done++;
    if (act == COUNT || act == LOG) return 0;
    if (act == ENOSPC_ON ? number < at : number != at) return 0;
    switch (act) {
    case KILL_BEFORE: kill(getpid(), SIGKILL); break;
    case KILL_AFTER: return 3;
    case TORN: if (is_write) return 2; kill(getpid(), SIGKILL); break;
    case EIO_ONCE: errno = EIO; return 1;
    default: errno = ENOSPC; return is_write ? 1 : 0;
    }
    return 0;
}
#define AFTER(result) do { if (what == 3) kill(getpid(), SIGKILL); return result; } while (0)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write); char path[4096];
    if (act < 0 || !fd_path(fd, path, sizeof path)) return real(fd, data, size);
    int what = step(1);
    if (what == 1) return -1;
    if (what == 2) { real(fd, data, size / 2); kill(getpid(), SIGKILL); }
    long offset = lseek(fd, 0, SEEK_CUR); ssize_t result = real(fd, data, size);
    if (result > 0) record("write", path, "", offset, data, result);
    AFTER(result);
}
static ssize_t placed(int fd, const void *data, size_t size, off64_t offset, ssize_t (*real)(int, const void *, size_t, off64_t)) {
    char path[4096];
    if (act < 0 || !fd_path(fd, path, sizeof path)) return real(fd, data, size, offset);
    int what = step(1);
    if (what == 1) return -1;
    if (what == 2) { real(fd, data, size / 2, offset); kill(getpid(), SIGKILL); }
    ssize_t result = real(fd, data, size, offset);
    if (result > 0) record("write", path, "", offset, data, result);
    AFTER(result);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { REAL(pwrite64); return placed(fd, data, size, offset, real); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { REAL(pwrite64); return placed(fd, data, size, offset, real); }
#define SYNC(name) int name(int fd) { REAL(name); char path[4096]; \
    if (act < 0 || !fd_path(fd, path, sizeof path)) return real(fd); \
    int what = step(0); if (what == 1) return -1; \
    int result = real(fd); if (!result) record("sync", path, "", 0, 0, 0); AFTER(result); }
SYNC(fsync) SYNC(fdatasync)
#define CUT(name, kind) int name(int fd, kind size) { REAL(name); char path[4096]; \
    if (act < 0 || !fd_path(fd, path, sizeof path)) return real(fd, size); \
    int what = step(1); if (what == 1) return -1; \
    int result = real(fd, size); if (!result) record("cut", path, "", size, 0, 0); AFTER(result); }
CUT(ftruncate, off_t) CUT(ftruncate64, off64_t)
int rename(const char *old, const char *new) {
    REAL(rename);
    if (!ours(old)) return real(old, new);
    int what = step(0); if (what == 1) return -1;
    int result = real(old, new); if (!result) record("rename", old, new, 0, 0, 0); AFTER(result);
}
int unlink(const char *path) {
    REAL(unlink);
    if (!ours(path) || strstr(path, "-shm")) return real(path);
    int what = step(0); if (what == 1) return -1;
    int result = real(path); if (!result) record("unlink", path, "", 0, 0, 0); AFTER(result);
}
int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    if (!ours(path)) return real(path, mode);
    int what = step(1); if (what == 1) return -1;
    int result = real(path, mode); if (!result) record("mkdir", path, "", 0, 0, 0); AFTER(result);
}
static int opened(const char *path, int flags, mode_t mode, int (*real)(const char *, int, ...)) {
    int there = access(path, F_OK) == 0, changes = (!there && (flags & O_CREAT)) || (there && (flags & O_TRUNC));
    if (!changes || !ours(path) || strstr(path, "-shm")) return real(path, flags, mode);
    int what = step(1); if (what == 1) return -1;
    int result = real(path, flags, mode);
    if (result >= 0) record(there ? "empty" : "create", path, "", 0, 0, 0);
    AFTER(result);
}
#define OPEN(name) int name(const char *path, int flags, ...) { REAL(name); mode_t mode = 0; \
    if (flags & O_CREAT) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
    return opened(path, flags, mode, (int (*)(const char *, int, ...))real); }
OPEN(open) OPEN(open64)
