/* inline.h - what becomes part of its caller always, so that its parameters are constants there. */
#ifndef QUERN_INLINE_H
#define QUERN_INLINE_H

#define ALWAYS_INLINE inline __attribute__((always_inline))

#endif
