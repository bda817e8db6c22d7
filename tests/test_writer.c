/* The GGUF writer: the same bytes come out, and whatever goes wrong, the target is what it was (bad-inputs G7 to G12). */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"
#include "copy_gguf.h"
#include "formats.h"
#include "test.h"

static struct quern_error err;

/* A folder of this test's own, so that leftovers can be counted. */
static const char *folder(void)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s", temp_path("writer"));
    mkdir(path, 0777);
    return path;
}

static const char *in_folder(const char *name)
{
    static char paths[4][4200];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder(), name);
    return path;
}

/* A small file: `keys` keys and `tensors` tensors of F32 [8 + i]. */
static void save_small(const char *path, uint32_t version, uint32_t alignment, unsigned tensors, bool padded)
{
    struct bytes b = { 0 };
    uint64_t offset = 0;
    put_raw(&b, "GGUF", 4);
    put_u32(&b, version);
    put_u64(&b, tensors);
    put_u64(&b, 6);
    put_key_text(&b, "general.architecture", "test");
    put_key_u32(&b, "general.alignment", alignment);
    put_string(&b, "x.nan"), put_u32(&b, GGUF_F32), put_u32(&b, 0x7fc12345);
    put_string(&b, "x.i16"), put_u32(&b, GGUF_I16), put_u16(&b, 0x8001);
    put_string(&b, "x.f64"), put_u32(&b, GGUF_F64), put_u64(&b, 0x3ff123456789abcdu);
    put_string(&b, "x.list"), put_u32(&b, GGUF_ARRAY), put_u32(&b, GGUF_STRING), put_u64(&b, 2), put_string(&b, "a"), put_string(&b,
                                                                                                                                "");
    for (unsigned i = 0; i < tensors; i++) {
        char name[32];
        snprintf(name, sizeof name, "tensor.%u", i);
        put_tensor(&b, name, 2, (uint64_t[]){ 8 + i, 3 }, FORMAT_F32, offset);
        offset += ((8 + i) * 12 + alignment - 1) / alignment * alignment;
    }
    if (tensors || padded)
        put_pad(&b, alignment);
    for (unsigned i = 0; i < tensors; i++) {
        for (unsigned k = 0; k < (8 + i) * 3; k++)
            put_f32(&b, (float)(i * 1000 + k));
        if (padded || i + 1 < tensors)
            put_pad(&b, alignment);
    }
    bytes_save(&b, path);
    bytes_free(&b);
}

static void test_round_trip_of_small_files(void)
{
    for (uint32_t version = 2; version <= 3; version++)
        for (uint32_t alignment = 8; alignment <= 128; alignment *= 4)
            for (unsigned tensors = 0; tensors <= 5; tensors++)
                for (int padded = 0; padded <= 1; padded++) {
                    save_small(in_folder("in.gguf"), version, alignment, tensors, padded);
                    CHECK(copy_gguf(in_folder("in.gguf"), in_folder("out.gguf"), true, 100, &err), "%s", err.text);
                    CHECK(same_files(in_folder("in.gguf"), in_folder("out.gguf")),
                          "version %u, alignment %u, %u tensors, padded %d",
                          version, alignment, tensors, padded);
                }
    CHECK(temps_left(folder()) == 0, "temporary files are left");
}

static size_t files_copied;

static int copy_and_compare(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    size_t n = strlen(path);
    (void)st, (void)ftw;
    if (type != FTW_F || n < 5 || strcmp(path + n - 5, ".gguf"))
        return 0;
    const char *out = in_folder("copy.gguf");
    CHECK(copy_gguf(path, out, true, SIZE_MAX, &err), "%s", err.text);
    CHECK(same_files(path, out), "%s: the copy has other bytes", path);
    files_copied++;
    return 0;
}

static void test_round_trip_of_real_files(void)
{
    if (!shared_path("models")) {
        test_skip("test_round_trip_of_real_files", "../shared is not there");
        return;
    }
    nftw(shared_path("models"), copy_and_compare, 16, FTW_PHYS);
    nftw(shared_path("vectors"), copy_and_compare, 16, FTW_PHYS);
    CHECK(files_copied > 50, "only %zu files were found", files_copied);
}

/* The target still holds these bytes, and no temporary file is left. */
static void expect_refused(bool ok, enum quern_code code, const char *words, const char *target, const char *was)
{
    CHECK(!ok && err.code == code, "expected code %d, got %d: %s", code, ok ? 0 : err.code, ok ? "" : err.text);
    CHECK(ok || strstr(err.text, words), "expected '%s' in: %s", words, err.text);
    CHECK(was ? same_files(target, was) : access(target, F_OK) != 0, "the target %s is not what it was", target);
    CHECK(temps_left(folder()) == 0, "a temporary file is left");
}

static void test_input_is_not_overwritten(void)
{
    const char *in = in_folder("in.gguf"), *was = in_folder("was.gguf");
    save_small(in, 3, 32, 3, true);
    save_small(was, 3, 32, 3, true);
    const char *names[4] = { in, in_folder("hard.gguf"), in_folder("soft.gguf"), in_folder("./in.gguf") };
    CHECK(link(in, names[1]) == 0 && symlink("in.gguf", names[2]) == 0, "cannot make links");
    for (size_t i = 0; i < 4; i++) {
        char target[4200], source[4200];
        snprintf(target, sizeof target, "%s", names[i]);
        snprintf(source, sizeof source, "%s/in.gguf", folder());
        bool ok = copy_gguf(source, target, true, 4096, &err);
        expect_refused(ok, QUERN_EUSAGE, "is an input itself", target, in_folder("was.gguf"));
    }
    remove(in_folder("hard.gguf"));
    remove(in_folder("soft.gguf"));
}

static void test_existing_target(void)
{
    const char *in = in_folder("in.gguf"), *out = in_folder("old.gguf");
    save_small(in, 3, 32, 3, true);
    save_small(out, 3, 32, 1, true);
    save_small(in_folder("was.gguf"), 3, 32, 1, true);
    expect_refused(copy_gguf(in, out, false, 4096, &err), QUERN_EUSAGE, "exists already", out, in_folder("was.gguf"));

    /* With force: replaced, through a symbolic link too, and the file's mode stays. */
    struct stat st;
    out = in_folder("old.gguf");
    chmod(out, 0640);
    const char *link = in_folder("link.gguf");
    CHECK(symlink("old.gguf", link) == 0, "cannot make a link");
    CHECK(copy_gguf(in_folder("in.gguf"), link, true, 4096, &err), "%s", err.text);
    CHECK(lstat(link, &st) == 0 && S_ISLNK(st.st_mode), "the link was replaced, not the file");
    CHECK(same_files(in_folder("in.gguf"), out), "not replaced");
    CHECK(stat(out, &st) == 0 && (st.st_mode & 0777) == 0640, "mode %o", st.st_mode & 0777);
    remove(link);
    remove(out);
}

static void test_targets_that_cannot_be(void)
{
    save_small(in_folder("in.gguf"), 3, 32, 3, true);
    bool ok = copy_gguf(in_folder("in.gguf"), in_folder("no/such/out.gguf"), true, 4096, &err);
    expect_refused(ok, QUERN_EIO, "No such file or directory", in_folder("no/such/out.gguf"), NULL);
    ok = copy_gguf(in_folder("in.gguf"), folder(), true, 4096, &err);
    CHECK(!ok && err.code == QUERN_EIO && strstr(err.text, "not a regular file"), "a directory: %s", err.text);
    ok = copy_gguf(in_folder("in.gguf"), "/dev/null", true, 4096, &err);
    CHECK(!ok && err.code == QUERN_EIO && strstr(err.text, "not a regular file"), "a device: %s", err.text);
    if (geteuid() == 0 && access("/sys/kernel", F_OK) != 0) {
        test_skip("a folder that cannot be written to", "root, and /sys is not mounted");
        return;
    }
    if (geteuid() == 0) {                                   /* root may write everywhere but there */
        ok = copy_gguf(in_folder("in.gguf"), "/sys/quern-out.gguf", true, 4096, &err);
        expect_refused(ok, QUERN_EIO, "cannot create", "/sys/quern-out.gguf", NULL);
        return;
    }
    char path[4200];
    snprintf(path, sizeof path, "%s/locked", folder());
    mkdir(path, 0555);
    ok = copy_gguf(in_folder("in.gguf"), in_folder("locked/out.gguf"), true, 4096, &err);
    expect_refused(ok, QUERN_EIO, "Permission denied", in_folder("locked/out.gguf"), NULL);
}

static void test_file_size_limit(void)
{
    struct rlimit was, low = { 300, 300 };
    save_small(in_folder("in.gguf"), 3, 32, 5, true);
    getrlimit(RLIMIT_FSIZE, &was);
    low.rlim_max = was.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &low);
    bool ok = copy_gguf(in_folder("in.gguf"), in_folder("out2.gguf"), true, 4096, &err);
    setrlimit(RLIMIT_FSIZE, &was);
    expect_refused(ok, QUERN_EIO, "ulimit -f", in_folder("out2.gguf"), NULL);
}

/* 2^61 bytes are more than any disk has. */
static void test_no_space(void)
{
    struct gguf_tensor t = { .name = { "huge", 4 }, .type = FORMAT_F32, .dims = 2,
                             .shape = { (size_t)1 << 30, (size_t)1 << 29, 1, 1 } };
    struct gguf_writer *w = gguf_writer_open(in_folder("out3.gguf"), NULL, &err);
    CHECK(w && gguf_writer_tensor(w, &t, &err), "%s", err.text);
    bool ok = gguf_writer_data(w, "1234", 4, &err);
    expect_refused(ok, QUERN_EIO, "are free", in_folder("out3.gguf"), NULL);
    CHECK(!gguf_writer_data(w, "1234", 4, &err) && err.code == QUERN_EUSAGE, "a writer that failed goes on");
    CHECK(!gguf_writer_commit(w, &err), "a writer that failed commits");
    gguf_writer_close(w);
}

/* What the reader would refuse is refused before the data. */
static void test_wrong_use(void)
{
    static const float data[64];
    struct gguf_tensor t = { .name = { "a", 1 }, .type = FORMAT_F32, .dims = 1, .shape = { 8, 1, 1, 1 } };
    const char *out = in_folder("out4.gguf");
    struct gguf_writer *w = gguf_writer_open(out, NULL, &err);
    CHECK(gguf_writer_u32(w, "k", 1, &err) && gguf_writer_u32(w, "k", 2, &err) && gguf_writer_tensor(w, &t, &err), "%s", err.text);
    expect_refused(gguf_writer_data(w, data, 32, &err), QUERN_EUSAGE, "duplicate key", out, NULL);
    gguf_writer_close(w);

    w = gguf_writer_open(out, NULL, &err);
    CHECK(gguf_writer_tensor(w, &t, &err) && gguf_writer_tensor(w, &t, &err), "%s", err.text);
    expect_refused(gguf_writer_data(w, data, 32, &err), QUERN_EUSAGE, "duplicate name", out, NULL);
    gguf_writer_close(w);

    w = gguf_writer_open(out, NULL, &err);
    CHECK(gguf_writer_tensor(w, &t, &err) && gguf_writer_data(w, data, 20, &err), "%s", err.text);
    expect_refused(gguf_writer_data(w, data, 20, &err), QUERN_EUSAGE, "more than", out, NULL);
    gguf_writer_close(w);

    w = gguf_writer_open(out, NULL, &err);
    CHECK(gguf_writer_tensor(w, &t, &err) && gguf_writer_data(w, data, 20, &err), "%s", err.text);
    expect_refused(gguf_writer_commit(w, &err), QUERN_EUSAGE, "is not complete", out, NULL);
    gguf_writer_close(w);

    w = gguf_writer_open(out, NULL, &err);
    CHECK(gguf_writer_tensor(w, &t, &err) && gguf_writer_data(w, data, 20, &err), "%s", err.text);
    gguf_writer_close(w);                                   /* closing without commit leaves nothing */
    CHECK(access(out, F_OK) != 0 && temps_left(folder()) == 0, "something is left");

    w = gguf_writer_open(out, &(struct gguf_writer_options){ .alignment = 64 }, &err);
    t.type = FORMAT_Q4_K;
    CHECK(!gguf_writer_tensor(w, &t, &err) && strstr(err.text, "blocks of 256"), "%s", err.text);
    CHECK(!gguf_writer_u32(w, "general.alignment", 32, &err) && strstr(err.text, "opened for 64"), "%s", err.text);
    gguf_writer_close(w);
}

/* An alignment that no key names gets its key: the reader must find the data. */
static void test_alignment_option(void)
{
    static const float data[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    struct gguf_tensor t = { .name = { "a", 1 }, .type = FORMAT_F32, .dims = 1, .shape = { 8, 1, 1, 1 } };
    struct gguf g;
    struct gguf_writer *w = gguf_writer_open(in_folder("a.gguf"), &(struct gguf_writer_options){ .alignment = 4096 }, &err);
    CHECK(gguf_writer_tensor(w, &t, &err) && gguf_writer_data(w, data, 32, &err) && gguf_writer_commit(w, &err), "%s", err.text);
    gguf_writer_close(w);
    CHECK(gguf_open(&g, in_folder("a.gguf"), NULL, &err), "%s", err.text);
    CHECK(g.tensor_count == 1 && g.tensors[0].offset == 4096 && !memcmp(g.tensors[0].data, data, 32), "the data is not at 4096");
    gguf_close(&g);
}

/* A killed run's file goes, one that a living run holds stays, other names are not touched. */
static void test_stale_files(void)
{
    static const char *const names[] = { ".out5.gguf.quern-999999-0", ".out5.gguf.quern-1-0", ".out5.gguf.quern-x",
                                         ".other.gguf.quern-7-0", ".out5.gguf.quern-" };
    enum { NAMES = sizeof names / sizeof *names };
    save_small(in_folder("in.gguf"), 3, 32, 3, true);
    for (size_t i = 0; i < NAMES; i++)
        save_small(in_folder(names[i]), 3, 32, 1, true);
    int held = open(in_folder(names[1]), O_RDONLY);
    CHECK(flock(held, LOCK_EX | LOCK_NB) == 0, "flock");
    CHECK(copy_gguf(in_folder("in.gguf"), in_folder("out5.gguf"), true, 4096, &err), "%s", err.text);
    CHECK(access(in_folder(names[0]), F_OK) != 0, "a stale file was left");
    for (size_t i = 1; i < NAMES; i++)
        CHECK(access(in_folder(names[i]), F_OK) == 0, "%s was removed", names[i]);
    close(held);
    for (size_t i = 1; i < NAMES; i++)
        remove(in_folder(names[i]));
}

/* A target that came into being while the writer was at work is not replaced unasked, and asked it is. */
static void test_target_meanwhile(void)
{
    for (int force = 0; force < 2; force++) {
        struct gguf_writer_options options = { .force = force };
        const char *path = in_folder("meanwhile.gguf");
        struct gguf_writer *w = gguf_writer_open(path, &options, &err);
        CHECK(w && gguf_writer_text(w, "key", "value", &err), "%s", err.text);
        FILE *f = fopen(path, "w");
        CHECK(f && fputs("another's", f) >= 0 && fclose(f) == 0, "%s", path);
        bool ok = w && gguf_writer_commit(w, &err);
        size_t size;
        char *text = read_whole_file(path, &size);
        CHECK(ok == (force != 0) && (ok || (err.code == QUERN_EUSAGE && strstr(err.text, "come into being"))), "%s", err.text);
        CHECK(text && (strcmp(text, "another's") == 0) == !force, "what stands there is '%.9s'", text);
        free(text);
        gguf_writer_close(w);
        remove(path);
    }
}

/* Three tensors through a writer that resumes; it stops after `bytes` of data. Gives the tensors that stood already. */
static size_t write_part(const char *path, const char *value, size_t bytes, bool commit)
{
    static const uint8_t data[3][256] = { { 1 }, { 2, 3 }, { 4, 5, 6 } };
    struct gguf_writer_options options = { .resume = true, .force = true };
    struct gguf_writer *w = gguf_writer_open(path, &options, &err);
    size_t standing = 0;
    CHECK(w != NULL, "%s", err.text);
    CHECK(gguf_writer_text(w, "work", value, &err), "%s", err.text);
    for (size_t i = 0; i < 3; i++) {
        char name[2] = { (char)('a' + i), 0 };
        struct gguf_tensor t = { .name = { name, 1 }, .type = FORMAT_F32, .dims = 1, .shape = { 7 + i, 1, 1, 1 } };
        CHECK(gguf_writer_tensor(w, &t, &err), "%s", err.text);
    }
    CHECK(gguf_writer_begin(w, &standing, &err), "%s", err.text);
    for (size_t i = standing; i < 3 && bytes; i++) {
        size_t n = (7 + i) * 4 < bytes ? (7 + i) * 4 : bytes;
        CHECK(gguf_writer_data(w, data[i], n, &err), "%s", err.text);
        bytes -= n;
    }
    uint8_t again[256];
    if (standing > 1)
        CHECK(gguf_writer_read(w, 1, again, &err) && !memcmp(again, data[1], 32), "what stands is read again");
    CHECK(!gguf_writer_read(w, 2, again, &err) || bytes || commit, "what is not written cannot be read");
    if (commit)
        CHECK(gguf_writer_commit(w, &err), "%s", err.text);
    gguf_writer_leave(w);
    gguf_writer_close(w);
    return standing;
}

/* Work that was left is taken up behind its last whole tensor; other work under the same name is not. */
static void test_resumed_files(void)
{
    size_t n, m;
    char whole[300], parts[300];
    snprintf(whole, sizeof whole, "%s", temp_path("whole.gguf"));
    snprintf(parts, sizeof parts, "%s", temp_path("parts.gguf"));
    CHECK(write_part(whole, "one", 1000, true) == 0, "nothing stands at first");
    char *expected = read_whole_file(whole, &n);
    CHECK(write_part(parts, "two", 80, false) == 0, "nothing stands at first");
    CHECK(write_part(parts, "one", 28, false) == 0, "other work is not taken up");
    CHECK(write_part(parts, "one", 40, false) == 1, "one tensor stands");
    CHECK(access(parts, F_OK) != 0, "no name before the end");
    CHECK(write_part(parts, "one", 1000, true) == 2, "two tensors stand");
    char *got = read_whole_file(parts, &m);
    CHECK(n == m && !memcmp(expected, got, n), "taken up twice, the same bytes");
    CHECK(write_part(parts, "one", 1000, true) == 0, "what is done is done");
    struct gguf_writer_options options = { .resume = true, .force = true };
    struct gguf_writer *first = gguf_writer_open(parts, &options, &err), *second = gguf_writer_open(parts, &options, &err);
    CHECK(first && !second && err.code == QUERN_EIO, "two at the same work: %s", err.text);
    gguf_writer_close(first);
    gguf_writer_close(second);
    free(expected), free(got);
}

int main(void)
{
    TEST(test_round_trip_of_small_files);
    TEST(test_round_trip_of_real_files);
    TEST(test_input_is_not_overwritten);
    TEST(test_existing_target);
    TEST(test_targets_that_cannot_be);
    TEST(test_file_size_limit);
    TEST(test_no_space);
    TEST(test_wrong_use);
    TEST(test_alignment_option);
    TEST(test_stale_files);
    TEST(test_target_meanwhile);
    TEST(test_resumed_files);
    return test_end();
}
