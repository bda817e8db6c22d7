/* The n-th allocation or system call fails, for every n: reading and writing GGUF (bad-inputs G7, G8, G20, G21). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"
#include "copy_gguf.h"
#include "fault.h"
#include "formats.h"
#include "test.h"

static struct quern_error err;
static char folder[4096], in[4200], out[4200];

/* 100 keys and 50 tensors of 20 KB, so that tables grow and the writer's buffer overflows. */
static void save_input(void)
{
    struct bytes b = { 0 };
    char name[32];
    put_header(&b, 50, 100);
    put_key_text(&b, "general.architecture", "test");
    for (unsigned i = 1; i < 100; i++) {
        snprintf(name, sizeof name, "key.%u", i);
        put_key_u32(&b, name, i);
    }
    for (unsigned i = 0; i < 50; i++) {
        snprintf(name, sizeof name, "tensor.%u", i);
        put_tensor(&b, name, 1, (uint64_t[]){ 5000 }, FORMAT_F32, i * 20000ul);
    }
    put_pad(&b, 32);
    for (unsigned i = 0; i < 50 * 5000; i++)
        put_f32(&b, (float)i);
    put_pad(&b, 32);
    bytes_save(&b, in);
    bytes_free(&b);
}

static void save_part(const char *path, unsigned no)
{
    struct bytes b = { 0 };
    put_header(&b, 1, 3);
    put_key_u16(&b, "split.no", (uint16_t)no);
    put_key_u16(&b, "split.count", 3);
    put_key_u32(&b, "split.tensors.count", 3);
    put_tensor(&b, (const char *[]){ "a", "b", "c" }[no], 1, (uint64_t[]){ 8 }, FORMAT_F32, 0);
    put_pad(&b, 32);
    put_zeros(&b, 32);
    bytes_save(&b, path);
    bytes_free(&b);
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

struct tally { size_t faults, errors; };

/* One open with a fault armed; false when the fault did not strike, that is, after the last one. */
static bool open_with_fault(const char *path, size_t tensors, enum fault_kind kind, struct tally *tally)
{
    struct gguf g;
    long before = fault_live_blocks();
    size_t n = tally->faults;
    fault_arm(kind, n, FAULT_ONCE);
    err.code = QUERN_OK;
    bool ok = gguf_open(&g, path, NULL, &err);
    const char *where = fault_disarm();
    CHECK(where || ok, "without a fault: %s", err.text);
    CHECK(!ok || (g.tensor_count == tensors && gguf_find_tensor(&g, tensors == 3 ? "c" : "tensor.49")),
          "%s %zu: opened, but not whole",
          where, n);
    if (!ok && kind == FAULT_MEMORY)
        CHECK(err.code == QUERN_EMEM, "%s %zu: code %d, %s", where, n, err.code, err.text);
    /* What a part of a split file lacks is the model's fault. */
    if (!ok && kind == FAULT_IO)
        CHECK(err.code == QUERN_EIO || (err.code == QUERN_EFORMAT && strstr(err.text, "Input/output error")), "%s %zu: code %d, %s",
              where, n, err.code, err.text);
    if (kind == FAULT_MEMORY)
        CHECK(!where || !ok, "%s %zu failed and nobody noticed", where, n);
    gguf_close(&g);
    CHECK(fault_live_blocks() == before, "%s %zu: %ld blocks leak", where, n, fault_live_blocks() - before);
    tally->faults += where != NULL;
    tally->errors += !ok;
    return where != NULL;
}

static void sweep_open(const char *path, size_t tensors)
{
    for (enum fault_kind kind = FAULT_MEMORY; kind <= FAULT_IO; kind++) {
        struct tally tally = { 0, 0 };
        while (open_with_fault(path, tensors, kind, &tally))
            ;
        CHECK(tally.faults >= 4 && tally.errors >= 2, "%zu faults, %zu errors", tally.faults, tally.errors);
        printf("open %zu tensors: %zu faults of %s, %zu errors\n", tensors, tally.faults, kind == FAULT_MEMORY ? "memory" : "files",
               tally.errors);
    }
}

static void test_open(void)
{
    sweep_open(in, 50);
}

static void test_open_split(void)
{
    char paths[3][4300];
    for (unsigned i = 0; i < 3; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/fault-%05u-of-00003.gguf", folder, i + 1);
        save_part(paths[i], i);
    }
    sweep_open(paths[0], 3);
}

/* Without mmap the file is read, however short the reads are; and a read that fails is an error. */
static void test_without_mmap(void)
{
    struct gguf g;
    fault_short_io(1000);
    fault_arm(FAULT_IO, 2, FAULT_ONCE);                     /* open, fstat, mmap */
    bool ok = gguf_open(&g, in, NULL, &err);
    const char *where = fault_disarm();
    fault_short_io(0);
    CHECK(where && !strcmp(where, "mmap"), "the fault struck in %s", where);
    CHECK(ok && g.parts[0].heap && g.tensor_count == 50, "%s", err.text);
    if (ok)
        CHECK(((const float *)(const void *)g.tensors[49].data)[4999] == 249999.0f, "other data");
    gguf_close(&g);
    fault_arm(FAULT_IO, 2, FAULT_FROM_THERE_ON);
    ok = gguf_open(&g, in, NULL, &err);
    fault_disarm();
    CHECK(!ok && err.code == QUERN_EIO && strstr(err.text, "cannot read"), "%s", err.text);
    gguf_close(&g);
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

/* One copy with a fault: success with the right bytes, or an error, the old target (or none) and no temporary file. */
static bool copy_with_fault(enum fault_kind kind, enum fault_mode mode, int number, bool had, struct tally *tally)
{
    size_t n = tally->faults;
    if (had)
        CHECK(copy_gguf(temp_path("faults/old.gguf"), out, true, SIZE_MAX, &err), "%s", err.text);
    else
        unlink(out);
    long before = fault_live_blocks();
    fault_error(number);
    fault_arm(kind, n, mode);
    bool ok = copy_gguf(in, out, true, 20000, &err);
    const char *where = fault_disarm();
    CHECK(where || ok, "without a fault: %s", err.text);
    CHECK(fault_live_blocks() == before, "%s %zu: %ld blocks leak", where, n, fault_live_blocks() - before);
    CHECK(temps_left(folder) == 0, "%s %zu: a temporary file is left", where, n);
    bool synced = ok || !strstr(err.text, "is written, but its directory could not be synced");
    if (ok || !synced)
        CHECK(same_files(in, out), "%s %zu: success, but other bytes", where, n);
    else if (had)
        CHECK(same_files(temp_path("faults/old.gguf"), out), "%s %zu: the old file is not what it was", where, n);
    else
        CHECK(access(out, F_OK) != 0, "%s %zu: something is under the final name", where, n);
    if (!ok)
        CHECK(err.code == (kind == FAULT_MEMORY ? QUERN_EMEM : QUERN_EIO), "%s %zu: code %d, %s", where, n, err.code, err.text);
    if (where && (!strcmp(where, "write") || !strcmp(where, "rename") || !strcmp(where, "ftruncate") || !strcmp(where, "fsync") ||
                  kind == FAULT_MEMORY))
        CHECK(!ok, "%s %zu failed and nobody noticed", where, n);
    tally->faults += where != NULL;
    tally->errors += !ok;
    return where != NULL;
}

static void test_write(void)
{
    struct bytes b = { 0 };
    put_header(&b, 0, 1);
    put_key_text(&b, "general.architecture", "old");
    put_pad(&b, 32);
    bytes_save(&b, temp_path("faults/old.gguf"));
    bytes_free(&b);
    static const struct { enum fault_kind kind; int number; const char *what; } sweeps[] = {
        { FAULT_MEMORY, ENOMEM, "memory" }, { FAULT_IO, EIO, "EIO" }, { FAULT_IO, ENOSPC, "ENOSPC" }, { FAULT_IO, EDQUOT,
                                                                                                        "EDQUOT" },
    };
    for (size_t i = 0; i < sizeof sweeps / sizeof *sweeps; i++)
        for (enum fault_mode mode = FAULT_ONCE; mode <= FAULT_FROM_THERE_ON; mode++)
            for (int had = 0; had <= 1; had++) {
                struct tally tally = { 0, 0 };
                while (copy_with_fault(sweeps[i].kind, mode, sweeps[i].number, had, &tally))
                    ;
                CHECK(tally.errors >= 10, "%zu faults, %zu errors", tally.faults, tally.errors);
                printf("copy: %zu faults of %s, %s, %s: %zu errors\n", tally.faults, sweeps[i].what,
                       mode == FAULT_ONCE ? "once" : "lasting",
                       had ? "over an old file" : "to a new file", tally.errors);
            }
    fault_error(EIO);
}

/* A power cut may lose what was not synced and may reorder the rest (bad-inputs G14): so all data is written and synced before
 * the rename, nothing is written after it, and the directory is synced then. */
static void test_order(void)
{
    fault_arm(FAULT_IO, SIZE_MAX >> 1, FAULT_ONCE);
    bool ok = copy_gguf(in, out, true, 20000, &err);
    fault_disarm();
    const char *trace = fault_trace(), *name = strchr(trace, 'N'), *written = strrchr(trace, 'w'), *synced = strchr(trace, 'f');
    CHECK(ok && name && written && synced, "%s", trace);
    if (!name || !written || !synced)
        return;
    CHECK(!strchr(name + 1, 'N'), "renamed twice: %s", trace);
    CHECK(written < synced && synced < name, "not written, synced, renamed: %s", trace);
    CHECK(strchr(name, 'f'), "the directory is not synced after the rename: %s", trace);
    CHECK(!strchr(name, 't') && !memchr(synced, 't', (size_t)(name - synced)), "cut after the sync: %s", trace);
    printf("order of a copy: ...%.8s | %s\n", name - 8, name);
}

static void test_short_writes(void)
{
    fault_short_io(777);
    bool ok = copy_gguf(in, out, true, SIZE_MAX, &err);
    fault_short_io(0);
    CHECK(ok && same_files(in, out), "%s", err.text);
}

int main(void)
{
    snprintf(folder, sizeof folder, "%s", temp_path("faults"));
    mkdir(folder, 0777);
    snprintf(in, sizeof in, "%s/in.gguf", folder);
    snprintf(out, sizeof out, "%s/out.gguf", folder);
    save_input();
    TEST(test_open);
    TEST(test_open_split);
    TEST(test_without_mmap);
    TEST(test_write);
    TEST(test_order);
    TEST(test_short_writes);
    return test_end();
}
