/* mma.cuh - tensor-core tiles of one warp (sm_80 and later): ldmatrix and mma.sync.
 *
 * Fragments of m16n8k16, lane l, with row = l / 4 and pair = 2 * (l % 4):
 *   a[0] (row, pair..+1)  a[1] (row+8, pair..+1)  a[2] (row, pair+8..+9)  a[3] (row+8, pair+8..+9)
 *   b[0] (k = pair..+1, n = row)                  b[1] (k = pair+8..+9, n = row)
 *   d[0], d[1] (row, pair..+1)                    d[2], d[3] (row+8, pair..+1)
 * ldmatrix: lane l gives the address of row l % 8 of 8x8 matrix l / 8; matrix i lands in r[i], as
 * its fragment of a or b; .trans gives the fragment of the transposed matrix.
 */
#pragma once
#include "device.cuh"

/* The 32-bit address of something in shared memory. */
DEVICE unsigned shared_address(const void *p) { return (unsigned)__cvta_generic_to_shared(p); }

DEVICE void ldmatrix_x4(unsigned (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

DEVICE void ldmatrix_x4_trans(unsigned (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

DEVICE void ldmatrix_x2(unsigned (&r)[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

DEVICE void ldmatrix_x2_trans(unsigned (&r)[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

/* d += a . b, bf16 products, fp32 sums */
DEVICE void mma_bf16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Two values as one register of bf16, low first: half of an a or b fragment. */
DEVICE unsigned pack_bf16(float low, float high)
{
    __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
    return *(unsigned *)&v;
}

/* 2^x to 2 ulp, results below 2^-126 are 0: one instruction of the special-function unit. */
DEVICE float exp2_approx(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
