// Whether this processor, and its system, run what the library was compiled for.

#if defined(__AVX2__)
#include <cpuid.h>

// Not __builtin_cpu_supports: what it reads is filled in by a run-time library that not every compiler brings.
static int has(unsigned leaf, int which, unsigned bits) {
    unsigned r[4] = {0};
    unsigned sub = leaf == 7 && which > 3 ? 1 : 0;
    return __get_cpuid_count(leaf, sub, &r[0], &r[1], &r[2], &r[3]) && (r[which % 4] & bits) == bits;
}

// The registers that the system keeps when it switches threads.
static int keeps(unsigned wanted) {
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & wanted) == wanted;
}

enum { EAX, EBX, ECX, EDX, EAX_OF_SUBLEAF_1 };
#endif

int kimi_vl_supported(void) {
#if defined(__AVX2__)
    // XGETBV itself, FMA and AVX; then AVX2
    if (!has(1, ECX, 1u << 27 | 1u << 12 | 1u << 28) || !keeps(6) || !has(7, EBX, 1u << 5)) return 0;
#endif
#if defined(__AVX512VNNI__)
    // F, DQ, BW, VL; VNNI; BF16
    if (!keeps(0xe6) || !has(7, EBX, 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31) || !has(7, ECX, 1u << 11) ||
        !has(7, EAX_OF_SUBLEAF_1, 1u << 5))
        return 0;
#endif
    return 1;
}
