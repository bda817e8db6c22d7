/* settle.h - weights into huge pages, in the background, while the model is in use already.
 *
 * A core that reads weights in pages of 4 KiB spends a third of its time walking page tables (20 instead of 32 GB/s on the Zen 4
 * where this was measured). A file that is read from disk for the first time under MADV_HUGEPAGE stands in huge pages by itself;
 * one that is in the page cache in small pieces (it was just downloaded or written) does not, and the kernel collapses no file
 * pages. So a thread walks over the mapping, lets the system read it ahead, and where the pages stay small copies a piece to
 * anonymous huge pages and moves these over the mapping at the same address (mremap is atomic for the readers: they see the same
 * bytes before and after). Pointers into the file stay valid; the process holds every byte once, the page cache's copy can be
 * dropped by the system at any time. */
#ifndef QUERN_SETTLE_H
#define QUERN_SETTLE_H

#include "map.h"

struct settle;

enum settle_mode {
    SETTLE_AUTO,      /* maps of 64 MiB and more; copies only where memory is plentiful */
    SETTLE_ON,        /* copies in any case */
    SETTLE_OFF        /* no thread, no advice about huge pages */
};

/* Begin to settle `count` maps; they must stay open until settle_stop. NULL when there is nothing to do, or no thread is to be
 * had: then all stays as it is, and nothing is slower than before. Never fails otherwise. */
struct settle *settle_start(const struct map *maps, size_t count, enum settle_mode mode);
/* Wait until all is done. */
void settle_wait(struct settle *s);
/* End the thread within one piece (a few milliseconds), wait for it, and free; NULL is allowed. */
void settle_stop(struct settle *s);
/* Bytes that are known to lie in huge pages so far; of them, those that were copied. */
size_t settle_huge(const struct settle *s, size_t *copied);

/* Is memory plentiful enough to hold `bytes` once more, beside the page cache's copy? `root` as in machine.h. */
bool settle_affordable(size_t bytes, const char *root);

#endif
