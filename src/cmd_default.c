/* The model inside the program: models/tiny-books-q8_0.gguf, taken into read-only data by the assembler. */
#include "cmd_engine.h"

#define MODEL_FILE "models/tiny-books-q8_0.gguf"

__asm__(".section .rodata\n"
        ".balign 4096\n"
        ".globl default_model\n"
        "default_model:\n"
        ".incbin \"" MODEL_FILE "\"\n"
        ".globl default_model_end\n"
        "default_model_end:\n"
        ".byte 0\n"
        ".previous\n");
