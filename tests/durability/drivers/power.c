/* Preloaded into a process: notes what its files looked like before each write that no sync has followed, so that
 * somebody else can take those writes back as loss of power would (power.py); and makes writes and syncs fail or slow.
 *
 * POWER_FOLDER   files in it are watched, but for *-shm (shared memory, not kept) and *-lock
 * POWER_JOURNAL  what happened to them, appended: one struct note, the path, the bytes that were there before
 * POWER_CONTROL  a file of one struct control, changed from outside at any time
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { WROTE = 1, CUT = 2, SYNCED = 3, FAILED = 4, REMOVED = 5 };
enum { PAGE = 4096 };

struct control {
    int32_t sync_errno, write_errno, sync_delay_us, failures; /* failures: how many calls were made to fail */
};

struct note {
    uint32_t kind, path_size;
    uint64_t offset, extent; /* pages touched, in bytes: their beginning and size */
    uint64_t before_size;    /* bytes that follow: what was there, as far as the file went */
    uint64_t file_size;      /* before */
};

static volatile struct control *control;
static int journal = -1;
static const char *folder;
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_ftruncate)(int, off64_t);
static int (*real_fdatasync)(int);
static int (*real_fsync)(int);
static int (*real_unlink)(const char *);

__attribute__((constructor)) static void begin(void) {
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_write = dlsym(RTLD_NEXT, "write");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    folder = getenv("POWER_FOLDER");
    const char *path = getenv("POWER_CONTROL");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd >= 0) {
        void *mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (mapped != MAP_FAILED) control = mapped;
        close(fd);
    }
    path = getenv("POWER_JOURNAL");
    if (path) journal = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int ends(const char *path, const char *with) {
    size_t n = strlen(path), m = strlen(with);
    return n >= m && strcmp(path + n - m, with) == 0;
}

/* The path of a watched file, or 0. */
static int watched(int fd, char *path) {
    char link[64];
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = folder ? readlink(link, path, PATH_MAX - 1) : -1;
    errno = saved;
    if (n < 0) return 0;
    path[n] = 0;
    return strncmp(path, folder, strlen(folder)) == 0 && !ends(path, "-shm") && !ends(path, "-lock");
}

static void put(uint32_t kind, int fd, const char *path, off64_t from, off64_t to) {
    if (journal < 0) return;
    int saved = errno;
    struct stat st;
    off64_t size = fstat(fd, &st) == 0 ? st.st_size : 0;
    off64_t first = from / PAGE * PAGE, end = (to + PAGE - 1) / PAGE * PAGE;
    off64_t there = end > size ? size : end;
    size_t before = there > first ? there - first : 0;
    size_t path_size = strlen(path), total = sizeof(struct note) + path_size + before;
    char *block = malloc(total);
    struct note note = {kind, path_size, first, end - first, before, size};
    memcpy(block, &note, sizeof note);
    memcpy(block + sizeof note, path, path_size);
    /* The journal is one write, so that a kill leaves a whole note or none. */
    if (pread64(fd, block + sizeof note + path_size, before, first) == (ssize_t)before)
        real_write(journal, block, total);
    free(block);
    errno = saved;
}

static int fails(int32_t with) {
    if (!with) return 0;
    __atomic_add_fetch(&control->failures, 1, __ATOMIC_SEQ_CST);
    errno = with;
    return 1;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    char path[PATH_MAX];
    if (watched(fd, path)) {
        if (control && fails(control->write_errno)) return -1;
        put(WROTE, fd, path, offset, offset + size);
    }
    return real_pwrite(fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }

int ftruncate64(int fd, off64_t size) {
    char path[PATH_MAX];
    struct stat st;
    if (watched(fd, path) && fstat(fd, &st) == 0) put(CUT, fd, path, size < st.st_size ? size : st.st_size, st.st_size);
    return real_ftruncate(fd, size);
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int unlink(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char found[PATH_MAX];
    if (fd >= 0) {
        if (watched(fd, found)) put(REMOVED, fd, found, 0, 0);
        close(fd);
    }
    return real_unlink(path);
}

static int sync_file(int fd, int (*real)(int)) {
    char path[PATH_MAX];
    if (!watched(fd, path)) return real(fd);
    if (control && control->sync_delay_us) {
        struct timespec ts = {control->sync_delay_us / 1000000, control->sync_delay_us % 1000000 * 1000L};
        nanosleep(&ts, NULL);
    }
    if (control && fails(control->sync_errno)) {
        put(FAILED, fd, path, 0, 0); /* and the kernel says of these pages that they are clean */
        return -1;
    }
    int result = real(fd);
    if (result == 0) put(SYNCED, fd, path, 0, 0);
    return result;
}

int fdatasync(int fd) { return sync_file(fd, real_fdatasync); }
int fsync(int fd) { return sync_file(fd, real_fsync); }
