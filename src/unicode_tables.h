/* unicode_tables.h - what unicode_tables.awk has made of the Unicode Character Database; unicode.c is its only reader. */
#ifndef QUERN_UNICODE_TABLES_H
#define QUERN_UNICODE_TABLES_H

#include <stddef.h>
#include <stdint.h>

extern const uint32_t unicode_ranges[];         /* code point << 9 | class, ascending */
extern const size_t   unicode_ranges_count;
extern const uint32_t unicode_lowers[][2];      /* ascending by the first */
extern const size_t   unicode_lowers_count;
extern const uint32_t unicode_bases[][2];       /* ascending by the first */
extern const size_t   unicode_bases_count;

#endif
