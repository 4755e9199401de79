// DRAGNOISE_CLONES before a function: compiled for wider vectors too, the loader takes what the processor has. Nothing elsewhere.
// The results do not depend on the choice: -ffp-contract=off, and sums have their order written out.
#pragma once

#if defined(__x86_64__) && defined(__gnu_linux__) && (defined(__clang__) ? __clang_major__ >= 14 : defined(__GNUC__))
#define DRAGNOISE_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define DRAGNOISE_CLONES
#endif
