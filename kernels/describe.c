/* describe.c - what `quern --cpu` prints: the machine, and who serves each slot.
 *
 * A bug report's first question is which code ran; the answer is read from the table itself, so that it cannot be out of date. */
#include "kernels.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A string that is cut where it does not fit; `length` goes on counting, as snprintf's result does. */
struct text {
    char  *bytes;
    size_t size, length;
};

static void add(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct text *t, const char *format, ...)
{
    va_list args;
    size_t used = t->length < t->size ? t->length : t->size;
    va_start(args, format);
    int n = vsnprintf(t->bytes ? t->bytes + used : NULL, t->size - used, format, args);
    va_end(args);
    t->length += n > 0 ? (size_t)n : 0;
}

/* A family of slots: `isa[i]` serves `name[i]`; NULL for none. One line per instruction set, in order of first appearance. */
struct family {
    const char *isa[FORMAT_COUNT], *name[FORMAT_COUNT];
    size_t      n;
};

static void put(struct family *f, const char *name, const char *isa)
{
    f->name[f->n] = name;
    f->isa[f->n++] = isa;
}

static bool seen_before(const struct family *f, size_t i)
{
    for (size_t j = 0; j < i; j++)
        if (f->isa[j] && !strcmp(f->isa[j], f->isa[i]))
            return true;
    return false;
}

static void print_family(struct text *t, const char *label, const struct family *f)
{
    for (size_t i = 0; i < f->n; i++) {
        if (!f->isa[i] || seen_before(f, i))
            continue;
        add(t, "%-20s %-12s", label, f->isa[i]);
        for (size_t j = i; j < f->n; j++)
            if (f->isa[j] && !strcmp(f->isa[j], f->isa[i]))
                add(t, " %s", f->name[j]);
        add(t, "\n");
        label = "";
    }
}

static void print_cpu(struct text *t, const struct cpu *cpu)
{
    add(t, "cpu                  %s\n", cpu->name[0] ? cpu->name : "unknown");
    add(t, "features             %s\n", cpu->features[0] ? cpu->features : "none that is used");
    const bool vnni = cpu->avx_vnni && cpu->level == CPU_AVX2;      /* above it AVX-512 serves all of its slots */
    add(t, "level                %s%s%s%s%s\n", cpu_level_name(cpu->level), cpu->avx512_bf16 ? " avx512_bf16" : "",
        cpu->avx512_vbmi ? " avx512_vbmi" : "", vnni ? " avx_vnni" : "", cpu->bf16 ? " bf16" : "");
}

static void print_formats(struct text *t, const struct kernels *table)
{
    static const char *const labels[ACT_KINDS] = { "products, f32", "products, bf16", "products, int8/32", "products, int8/256" };
    struct family dequantize = { .n = 0 }, quantize = { .n = 0 };
    for (enum act_kind kind = 0; kind < ACT_KINDS; kind++) {
        struct family products = { .n = 0 };
        for (uint32_t id = 0; id < FORMAT_COUNT; id++)
            if (table->matmul[id].matmul && table->matmul[id].act == kind)
                put(&products, format_find(id)->name, table->matmul[id].isa);
        print_family(t, labels[kind], &products);
    }
    for (uint32_t id = 0; id < FORMAT_COUNT; id++) {
        if (table->dequantize[id].fn)
            put(&dequantize, format_find(id)->name, table->dequantize[id].isa);
        if (table->quantize[id].fn)
            put(&quantize, format_find(id)->name, table->quantize[id].isa);
    }
    print_family(t, "decode", &dequantize);
    print_family(t, "encode", &quantize);
}

static void print_others(struct text *t, const struct kernels *table)
{
    static const char *const acts[ACT_KINDS] = { "f32", "bf16", "int8/32", "int8/256" };
    struct family prepare = { .n = 0 }, scores = { .n = 0 }, mix = { .n = 0 }, vectors = { .n = 0 };
    for (enum act_kind kind = 0; kind < ACT_KINDS; kind++)
        put(&prepare, acts[kind], table->act_prepare[kind].isa);
    for (enum kv_type type = 0; type < KV_TYPES; type++) {
        put(&scores, kv_name(type), table->attn_scores[type].isa);
        put(&mix, kv_name(type), table->attn_mix[type].isa);
    }
    put(&vectors, "rms_norm", table->rms_norm.isa);
    put(&vectors, "layer_norm", table->layer_norm.isa);
    put(&vectors, "rope", table->rope.isa);
    put(&vectors, "silu_mul", table->silu_mul.isa);
    put(&vectors, "gelu_mul", table->gelu_mul.isa);
    put(&vectors, "silu", table->silu.isa);
    put(&vectors, "gelu", table->gelu.isa);
    put(&vectors, "axpy", table->axpy.isa);
    put(&vectors, "dot", table->dot.isa);
    put(&vectors, "softmax", table->softmax.isa);
    put(&vectors, "attn_query", table->attn_query.isa);
    put(&vectors, "attn_store", table->attn_store_key.isa);
    put(&vectors, "softmax_step", table->softmax_step.isa);
    if (table->softmax_rows.fn)
        put(&vectors, "softmax_rows", table->softmax_rows.isa);
    print_family(t, "activations", &prepare);
    print_family(t, "attention scores", &scores);
    print_family(t, "attention values", &mix);
    add(t, "cache by default     %s\n", kv_name(table->cache));
    print_family(t, "vectors", &vectors);
}

size_t kernels_describe(char *text, size_t size, const struct kernels *table)
{
    struct text t = { .bytes = text, .size = size };
    print_cpu(&t, &table->cpu);
    print_formats(&t, table);
    print_others(&t, table);
    return t.length;
}
