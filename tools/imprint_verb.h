/* imprint_verb.h - the verb imprint of quern-quantize. */
#ifndef QUERN_IMPRINT_VERB_H
#define QUERN_IMPRINT_VERB_H

#include "cli.h"

extern const struct verb verb_imprint;

#endif
