/* Stacked bidirectional LSTM on a CPU: forward and backward of one block of sequences.
 *
 * The lanes of a vector are sequences. A block holds NV vectors of LANES sequences (S = NV * LANES floats a row), and
 * every array of a block is laid out [time][row][S]. The file includes itself once for each NV, so that the inner loops
 * have constant bounds and the accumulators stay in registers.
 *
 * Units are padded to a multiple of 8 (U -> Up) with zero weights: a padded unit stays at zero and its gradients are
 * dropped. Gate rows are ordered [unit][i, f, g, o]; Keras orders them [gate][unit].
 *
 * README.md has every layout and what each entry point reads and writes. Entry points take an int64 array dims
 * = {N, T, D, U, L, both}; they have many arguments because ctypes calls them directly with plain pointers and a struct
 * would have to be kept in step in two languages.
 */
#ifndef NV
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 16
#define MR 8
#elif defined(__AVX__)
#define LANES 8
#define MR 4
#else
#define LANES 4
#define MR 4
#endif

#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))
#define CHUNK_VECTORS 48 /* steps x NV between weight-gradient passes: a tile has to stay in the L1 cache */
#define SKEW 4 /* spare rows a step: without them the steps of a weight-gradient tile fall into the same cache sets */

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));

typedef struct {
    long N, T, D, U, L, both, Up, Dq, Dp;
} Net;

static long round_up(long n, long m) { return (n + m - 1) / m * m; }

static Net net_of(const int64_t *d) {
    Net n = {d[0], d[1], d[2], d[3], d[4], d[5], round_up(d[3], 8), round_up(d[2], 4), round_up(d[2], 8)};
    return n;
}

/* Rows fed to layer l: those that count, those stored, from one step to the next, and those of its input gradient. */
static long rows_in(const Net *n, long l) { return l ? 2 * n->Up : n->D; }
static long rows_stored(const Net *n, long l) { return l ? 2 * n->Up : n->Dq; }
static long rows_apart(const Net *n, long l) { return l ? 2 * n->Up + SKEW : n->Dq; }
static long rows_grad(const Net *n, long l) { return l ? 2 * n->Up : n->Dp; }

static long pack_one(const Net *n, long l) {
    return 4 * n->Up * (rows_in(n, l) + n->Up + 1 + n->Up + rows_grad(n, l));
}
static long pack_at(const Net *n, long l, long d) {
    long at = 0;
    for (long i = 0; i < l; i++) at += 2 * pack_one(n, i);
    return at + d * pack_one(n, l);
}
EXPORT int64_t bilstm_lanes(void) { return LANES; }
EXPORT int64_t bilstm_pack_floats(const int64_t *dims) {
    Net n = net_of(dims);
    return pack_at(&n, n.L, 0);
}

/* Number of floats of the weights of layers below l (both directions), in Keras's own layout. */
static long weights_at(const Net *n, long l, long d) {
    long at = 0;
    for (long i = 0; i <= l; i++) {
        long one = 4 * n->U * ((i ? 2 * n->U : n->D) + n->U + 1);
        at += i < l ? 2 * one : d * one;
    }
    return at;
}

/* Stored input row -> row of the Keras kernel, or -1 for padding. */
static long kernel_row(const Net *n, long l, long k) {
    if (!l) return k < n->D ? k : -1;
    long d = k / n->Up, u = k % n->Up;
    return u < n->U ? d * n->U + u : -1;
}

/* w[6 l + 3 d ...] = kernel (rows, 4U), recurrent kernel (U, 4U), bias (4U). Forward packing: tiles of MR gate rows,
 * [tile][k][MR], scaled so that 2^y is the exponential each activation needs. Backward packing: transposed,
 * unscaled. */
EXPORT void bilstm_pack(const int64_t *dims, const float *const *w, float *packed) {
    const float sigmoid_scale = -1.44269504088896f, tanh_scale = -2.88539008177793f;
    Net n = net_of(dims);
    long G = 4 * n.Up, U = n.U;
    for (long l = 0; l < n.L; l++)
        for (long d = 0; d < 2; d++) {
            const float *kernel = w[6 * l + 3 * d], *rec = w[6 * l + 3 * d + 1], *bias = w[6 * l + 3 * d + 2];
            long din = rows_in(&n, l), K = din + n.Up;
            float *fw = packed + pack_at(&n, l, d), *fb = fw + G * K, *bw = fb + G;
            memset(fw, 0, sizeof(float) * pack_one(&n, l));
            for (long r = 0; r < G; r++) {
                long u = r / 4, gate = r % 4, col = gate * U + u;
                float s = gate == 2 ? tanh_scale : sigmoid_scale;
                if (u >= U) continue;
                fb[r] = s * bias[col];
                for (long k = 0; k < K; k++) {
                    long kr = k < din ? kernel_row(&n, l, k) : k - din;
                    if (kr < 0 || (k >= din && kr >= U)) continue;
                    float v = k < din ? kernel[kr * 4 * U + col] : rec[kr * 4 * U + col];
                    long z = k < din ? n.Up + k : k - din; /* backward rows: hidden state first, then inputs */
                    fw[(r / MR * K + k) * MR + r % MR] = s * v;
                    bw[(z / MR * G + r) * MR + z % MR] = v;
                }
            }
        }
}

/* Gradients fade over hundreds of steps into denormal numbers, which a CPU handles a hundred times slower. */
INLINE unsigned long flush_denormals(void) {
#if defined(__SSE__)
    unsigned int old = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(old | 0x8040);
    return old;
#elif defined(__aarch64__)
    unsigned long old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    __asm__ volatile("msr fpcr, %0" : : "r"(old | 1ul << 24));
    return old;
#else
    return 0;
#endif
}
INLINE void restore_denormals(unsigned long old) {
#if defined(__SSE__)
    __builtin_ia32_ldmxcsr((unsigned int)old);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(old));
#else
    (void)old;
#endif
}

INLINE vf vmin(vf a, vf b) { /* a NaN in b passes through */
#if defined(__AVX512F__)
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#else
    vi m = a < b;
    return (vf)(((vi)a & m) | ((vi)b & ~m));
#endif
}
INLINE vf vmax(vf a, vf b) {
#if defined(__AVX512F__)
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#else
    vi m = a > b;
    return (vf)(((vi)a & m) | ((vi)b & ~m));
#endif
}
INLINE vf rcp(vf d) {
#if defined(__AVX512F__)
    vf r = (vf)_mm512_rcp14_ps((__m512)d);
    return r * (2.0f - d * r);
#else
    return 1.0f / d;
#endif
}

/* 2^y to about 1e-7, y held to +-60 so that the product of two (1 + 2^y) is finite. */
INLINE vf exp2v(vf y) {
    const vf magic = (vf){} + 12582912.0f;
    y = vmax((vf){} - 60.0f, vmin((vf){} + 60.0f, y));
    vf shifted = y + magic, r = y - (shifted - magic);
    vf p = r * 1.32645806e-3f + 9.67146922e-3f;
    p = p * r + 5.55073358e-2f;
    p = p * r + 2.40222424e-1f;
    p = p * r + 6.93147004e-1f;
    p = p * r + 1.0f;
    return (vf)((vi)p + ((vi)shifted << 23));
}
INLINE vf tanhv(vf x) {
    vf e = exp2v(x * -2.88539008177793f);
    return (1.0f - e) * rcp(1.0f + e);
}

#if LANES == 16
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#elif LANES == 8
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ODD 1, 3, 5, 7, 9, 11, 13, 15
#else
#define EVEN 0, 2, 4, 6
#define ODD 1, 3, 5, 7
#endif
INLINE vf fold(vf a, vf b) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, EVEN) + __builtin_shufflevector(a, b, ODD);
#else
    return __builtin_shuffle(a, b, (vi){EVEN}) + __builtin_shuffle(a, b, (vi){ODD});
#endif
}
/* Sums of LANES vectors, one a lane: each pass halves the vectors and keeps their order. */
INLINE vf sum_lanes(vf *v) {
#pragma GCC unroll 8
    for (int n = LANES / 2; n; n /= 2)
#pragma GCC unroll 16
        for (int i = 0; i < n; i++) v[i] = fold(v[2 * i], v[2 * i + 1]);
    return v[0];
}

#define PASTE2(a, b) a##b
#define PASTE(a, b) PASTE2(a, b)
#define FN(name) PASTE(name, NV)
#define S (NV * LANES)
#define NV 1
#include "bilstm.c"
#undef NV
#define NV 2
#include "bilstm.c"
#undef NV
#define NV 3
#include "bilstm.c"
#undef NV

/* Floats of a block's states (input, layer outputs and, in training, gates and cells) and of its backward workspace. */
EXPORT int64_t bilstm_state_floats(const int64_t *dims, int64_t nv, int64_t train) {
    Net n = net_of(dims);
    long s = nv * LANES, layers = train ? n.L : 2;
    return s * (n.T * (n.Dq + layers * rows_apart(&n, 1) + (train ? n.L * 10 * n.Up : 0)) + 6 * n.Up);
}
EXPORT int64_t bilstm_work_floats(const int64_t *dims, int64_t nv) {
    Net n = net_of(dims);
    long s = nv * LANES, widest = 2 * n.Up > n.Dq ? 2 * n.Up : n.Dq;
    return s * (2 * n.T * 2 * n.Up + n.T * n.Dp + CHUNK_VECTORS / nv * (4 * n.Up + SKEW) + 2 * n.Up) +
           4 * n.Up * LANES + 4 * n.Up * (widest + n.Up);
}

#define DISPATCH(call1, call2, call3) \
    do { if (nv == 1) call1; else if (nv == 2) call2; else call3; } while (0)

/* x (N, T, D) -> the block's own copy; first: index of its first sequence. */
EXPORT void bilstm_load(const int64_t *dims, int64_t nv, int64_t first, const float *x, float *state) {
    Net n = net_of(dims);
    DISPATCH(load1(&n, first, x, state), load2(&n, first, x, state), load3(&n, first, x, state));
}
/* One direction of one layer; the top layer writes its final state to out (N, U or 2U). */
EXPORT void bilstm_layer(const int64_t *dims, int64_t nv, int64_t first, int64_t train, int64_t l, int64_t d,
                         const float *packed, float *state, float *out) {
    Net n = net_of(dims);
    unsigned long mode = flush_denormals();
    DISPATCH(layer1(&n, first, train, l, d, packed, state, out), layer2(&n, first, train, l, d, packed, state, out),
             layer3(&n, first, train, l, d, packed, state, out));
    restore_denormals(mode);
}
EXPORT void bilstm_forward(const int64_t *dims, int64_t nv, int64_t first, int64_t train, const float *packed,
                           const float *x, float *state, float *out) {
    bilstm_load(dims, nv, first, x, state);
    for (int64_t l = 0; l < dims[4]; l++)
        for (int64_t d = 0; d < 2; d++) bilstm_layer(dims, nv, first, train, l, d, packed, state, out);
}
/* dout (N, U or 2U), state of a training forward -> dw (all weights, Keras layout, this block's share), dx or NULL. */
EXPORT void bilstm_backward(const int64_t *dims, int64_t nv, int64_t first, const float *packed, const float *state,
                            const float *dout, float *work, float *dw, float *dx) {
    Net n = net_of(dims);
    unsigned long mode = flush_denormals();
    DISPATCH(backward1(&n, first, packed, state, dout, work, dw, dx),
             backward2(&n, first, packed, state, dout, work, dw, dx),
             backward3(&n, first, packed, state, dout, work, dw, dx));
    restore_denormals(mode);
}

#else /* ------------------------------------------------- one block width ------------------------------------------ */

/* Two tiles at once when one vector a row would leave too few independent sums. */
#define TP (NV == 1 ? 2 : 1)
#define ROW(p, r) ((p) + (long)(r) * S)
#define VEC(p, j) (((const vf *)(p))[j])

static void FN(load)(const Net *n, long first, const float *x, float *state) {
    long count = n->N - first < S ? n->N - first : S;
    memset(state, 0, sizeof(float) * n->T * n->Dq * S);
    for (long s = 0; s < count; s++)
        for (long t = 0; t < n->T; t++)
            for (long k = 0; k < n->D; k++) ROW(state, t * n->Dq + k)[s] = x[((first + s) * n->T + t) * n->D + k];
}

/* acc[row][j] += sum over k of w[k][row] z[k][j] for tp tiles of MR rows, `step` floats apart. */
INLINE void FN(mac)(vf acc[][NV], const int tp, const float *w, long step, const float *z, long K) {
    for (long k = 0; k < K; k++) {
        vf v[NV];
#pragma GCC unroll 4
        for (int j = 0; j < NV; j++) v[j] = VEC(ROW(z, k), j);
#pragma GCC unroll 32
        for (int r = 0; r < tp * MR; r++) {
            const float b = w[k * MR + r / MR * step + r % MR];
#pragma GCC unroll 4
            for (int j = 0; j < NV; j++) acc[r][j] += b * v[j];
        }
    }
}

typedef struct {
    const float *fw, *fb, *bw;
    long din, K, G;
} FN(Pack);
INLINE FN(Pack) FN(pack_of)(const Net *n, const float *packed, long l, long d) {
    FN(Pack) p;
    p.din = rows_in(n, l), p.K = p.din + n->Up, p.G = 4 * n->Up;
    p.fw = packed + pack_at(n, l, d), p.fb = p.fw + p.G * p.K, p.bw = p.fb + p.G;
    return p;
}

/* Places in a state buffer: input | layer outputs | (training) gates, cells of each layer, direction | small rows. */
INLINE long FN(out_at)(const Net *n, long l, int train) {
    return S * n->T * (n->Dq + (train ? l : l % 2) * rows_apart(n, 1));
}
INLINE long FN(gates_at)(const Net *n, long l, long d) {
    return S * n->T * (n->Dq + n->L * rows_apart(n, 1) + (2 * l + d) * 5 * n->Up);
}
INLINE long FN(rows_at)(const Net *n, int train) {
    return train ? FN(gates_at)(n, n->L, 0) : FN(out_at)(n, 1, 0) + S * n->T * rows_apart(n, 1);
}

/* Activations and cell update of one tile of gate sums. The cell is read from cp; train keeps the gates. */
INLINE void FN(cell)(vf acc[][NV], const int units, const int train, const float *cp, float *c, float *h,
                     float *gates) {
#pragma GCC unroll 8
    for (int u = 0; u < units; u++)
#pragma GCC unroll 4
        for (int j = 0; j < NV; j++) {
            vf ei = exp2v(acc[4 * u][j]), ef = exp2v(acc[4 * u + 1][j]);
            vf eg = exp2v(acc[4 * u + 2][j]), eo = exp2v(acc[4 * u + 3][j]), *hv = (vf *)ROW(h, u) + j;
            vf *cv = (vf *)ROW(c, u) + j;
            if (train) {
                vf i = rcp(1.0f + ei), f = rcp(1.0f + ef), g = (1.0f - eg) * rcp(1.0f + eg), o = rcp(1.0f + eo);
                vf *gv = (vf *)ROW(gates, 4 * u) + j;
                vf cell = f * VEC(ROW(cp, u), j) + i * g;
                gv[0] = i, gv[NV] = f, gv[2 * NV] = g, gv[3 * NV] = o;
                *cv = cell;
                *hv = o * tanhv(cell);
            } else { /* two quotients share one reciprocal */
                vf cell = VEC(ROW(cp, u), j) * rcp(1.0f + ef) + (1.0f - eg) * rcp((1.0f + ei) * (1.0f + eg));
                vf ec = exp2v(cell * -2.88539008177793f);
                *cv = cell;
                *hv = (1.0f - ec) * rcp((1.0f + eo) * (1.0f + ec));
            }
        }
}

INLINE void FN(step)(const Net *n, const FN(Pack) *p, const int train, const float *x, const float *hp, const float *cp,
                     float *h, float *c, float *gates) {
    const int units = TP * MR / 4;
    for (long u = 0; u < n->Up; u += units) {
        vf acc[TP * MR][NV];
        const float *w = p->fw + 4 * u * p->K;
#pragma GCC unroll 32
        for (int r = 0; r < TP * MR; r++)
#pragma GCC unroll 4
            for (int j = 0; j < NV; j++) acc[r][j] = (vf){} + p->fb[4 * u + r];
        FN(mac)(acc, TP, w, p->K * MR, x, p->din);
        FN(mac)(acc, TP, w + p->din * MR, p->K * MR, hp, n->Up);
        FN(cell)(acc, units, train, ROW(cp, u), ROW(c, u), ROW(h, u), train ? ROW(gates, 4 * u) : 0);
    }
}

static void FN(store_out)(const Net *n, long first, long d, const float *h, float *out) {
    long count = n->N - first < S ? n->N - first : S, width = n->both ? 2 * n->U : n->U;
    float *o = out + first * width + (n->both ? d * n->U : 0);
    for (long s = 0; s < count; s++)
        for (long u = 0; u < n->U; u++) o[s * width + u] = ROW(h, u)[s];
}

/* The gates' and cells' places lie beyond an inference state: gs and cs are used in training only. */
static void FN(layer)(const Net *n, long first, long train, long l, long d, const float *packed, float *state,
                      float *out) {
    const long top = l == n->L - 1, Up = n->Up, W = rows_apart(n, 1), in_rows = rows_apart(n, l);
    const float *in = state + (l ? FN(out_at)(n, l - 1, train) : 0);
    FN(Pack) p = FN(pack_of)(n, packed, l, d);
    float *hs = state + FN(out_at)(n, l, train), *gs = state + FN(gates_at)(n, l, d), *cs = gs + S * n->T * 4 * Up;
    float *small = state + FN(rows_at)(n, train) + d * 3 * Up * S, *c = small; /* three rows of its own a direction */
    const float *hp = ROW(small, 2 * Up), *cp = train ? ROW(small, 2 * Up) : small;
    if (top && !n->both && !d) return;
    memset(small, 0, sizeof(float) * 3 * Up * S);
    for (long s = 0; s < n->T; s++) {
        long t = d ? n->T - 1 - s : s;
        float *h = top && !train ? ROW(small, (1 + (s & 1)) * Up) : ROW(hs, t * W + d * Up);
        if (train) {
            c = ROW(cs, t * Up);
            FN(step)(n, &p, 1, ROW(in, t * in_rows), hp, cp, h, c, ROW(gs, t * 4 * Up));
        } else {
            FN(step)(n, &p, 0, ROW(in, t * in_rows), hp, cp, h, c, 0);
        }
        hp = h, cp = c;
    }
    if (top) FN(store_out)(n, first, d, hp, out);
}

/* dgates of one step, and dc for the step before it in the layer's own order. */
INLINE void FN(dgates)(const Net *n, const float *g, const float *c, const float *cp, const float *dout,
                       const float *dh, float *dc, float *dg, vf *db) {
    for (long u = 0; u < n->Up; u++) {
        vf sum[4] = {db[4 * u], db[4 * u + 1], db[4 * u + 2], db[4 * u + 3]};
#pragma GCC unroll 4
        for (int j = 0; j < NV; j++) {
            const vf *gv = (const vf *)ROW(g, 4 * u) + j;
            vf i = gv[0], f = gv[NV], a = gv[2 * NV], o = gv[3 * NV], th = tanhv(VEC(ROW(c, u), j));
            vf dhv = VEC(ROW(dh, u), j), *dcv = (vf *)ROW(dc, u) + j, *dv = (vf *)ROW(dg, 4 * u) + j, v[4];
            if (dout) dhv += VEC(ROW(dout, u), j);
            vf dcell = *dcv + dhv * o * (1.0f - th * th);
            v[0] = dcell * a * i * (1.0f - i);
            v[1] = cp ? dcell * VEC(ROW(cp, u), j) * f * (1.0f - f) : (vf){};
            v[2] = dcell * i * (1.0f - a * a);
            v[3] = dhv * th * o * (1.0f - o);
            *dcv = dcell * f;
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) dv[k * NV] = v[k], sum[k] += v[k];
        }
        for (int k = 0; k < 4; k++) db[4 * u + k] = sum[k];
    }
}

/* z[rows] = or += (transposed weights) dgates; w is the packing of those rows. */
INLINE void FN(dinputs)(const float *w, long rows, long G, const float *dg, float *z, const int add) {
    for (long r = 0; r < rows; r += MR) {
        vf acc[MR][NV];
#pragma GCC unroll 32
        for (int i = 0; i < MR; i++)
#pragma GCC unroll 4
            for (int j = 0; j < NV; j++) acc[i][j] = add ? VEC(ROW(z, r + i), j) : (vf){};
        FN(mac)(acc, 1, w + r * G, 0, dg, G);
#pragma GCC unroll 32
        for (int i = 0; i < MR; i++)
#pragma GCC unroll 4
            for (int j = 0; j < NV; j++) ((vf *)ROW(z, r + i))[j] = acc[i][j];
    }
}

/* acc[unit][k / 4][4 gates x 4 k] += sum over steps and lanes of dg z; z moves zstep floats a step. */
INLINE void FN(dweights)(const float *dg, const float *z, long zstep, long steps, long Up, long K, float *acc,
                         long accstep) {
    for (long u = 0; u < Up; u++)
        for (long k = 0; k < K; k += 4) {
            vf a[16] = {{0}}, *to = (vf *)(acc + u * accstep + 4 * k);
            const float *dp = ROW(dg, 4 * u), *zp = ROW(z, k);
            for (long t = 0; t < steps; t++, dp += (4 * Up + SKEW) * S, zp += zstep)
#pragma GCC unroll 4
                for (int j = 0; j < NV; j++) {
                    vf b0 = VEC(zp, j), b1 = VEC(ROW(zp, 1), j), b2 = VEC(ROW(zp, 2), j), b3 = VEC(ROW(zp, 3), j);
#pragma GCC unroll 4
                    for (int r = 0; r < 4; r++) {
                        vf g = VEC(ROW(dp, r), j);
                        a[4 * r] += g * b0, a[4 * r + 1] += g * b1, a[4 * r + 2] += g * b2, a[4 * r + 3] += g * b3;
                    }
                }
#pragma GCC unroll 4
            for (int i = 0; i < 16 / LANES; i++) to[i] += sum_lanes(a + i * LANES);
        }
}

static void FN(unpack)(const Net *n, long l, const float *acc, const float *db, float *dw) {
    long U = n->U, zx = rows_stored(n, l), K = zx + n->Up, din = l ? 2 * U : n->D;
    float *rec = dw + din * 4 * U, *bias = rec + 4 * U * U;
    for (long u = 0; u < U; u++)
        for (long g = 0; g < 4; g++) {
            float sum = 0.0f;
            for (long k = 0; k < K; k++) {
                long row = k < zx ? kernel_row(n, l, k) : k - zx;
                if (row < 0 || row >= (k < zx ? din : U)) continue;
                (k < zx ? dw : rec)[row * 4 * U + g * U + u] = acc[(u * K + (k & ~3L)) * 4 + g * 4 + (k & 3)];
            }
            for (long s = 0; s < LANES; s++) sum += db[(4 * u + g) * LANES + s];
            bias[g * U + u] = sum;
        }
}

typedef struct {
    float *d0, *d1, *dxin, *dg, *dh, *dc, *db, *acc;
} FN(Work);

static void FN(layer_back)(const Net *n, long l, long d, const float *packed, const float *state, const float *dout,
                           float *din, const FN(Work) *w, float *dw) {
    const long Up = n->Up, T = n->T, W = rows_apart(n, 1), in_rows = rows_stored(n, l);
    const long g_rows = rows_grad(n, l), K = in_rows + Up;
    const long chunk = CHUNK_VECTORS / NV, apart = rows_apart(n, l), dg_apart = 4 * Up + SKEW;
    const float *in = state + (l ? FN(out_at)(n, l - 1, 1) : 0), *hs = ROW(state + FN(out_at)(n, l, 1), d * Up);
    const float *gs = state + FN(gates_at)(n, l, d), *cs = gs + S * T * 4 * Up;
    FN(Pack) p = FN(pack_of)(n, packed, l, d);
    memset(w->dc, 0, sizeof(float) * Up * S);
    memset(w->db, 0, sizeof(float) * 4 * Up * LANES);
    memset(w->acc, 0, sizeof(float) * 4 * Up * K);
    for (long done = 0; done < T; done += chunk) {
        long len = T - done < chunk ? T - done : chunk, t0 = d ? done : T - done - len;
        for (long s = 0; s < len; s++) {
            long at = d ? s : len - 1 - s, t = t0 + at, tp = d ? t + 1 : t - 1;
            float *dg = ROW(w->dg, at * dg_apart);
            FN(dgates)(n, ROW(gs, t * 4 * Up), ROW(cs, t * Up), tp < 0 || tp == T ? 0 : ROW(cs, tp * Up),
                       dout ? ROW(dout, (2 * t + d) * Up) : 0, w->dh, w->dc, dg, (vf *)w->db);
            FN(dinputs)(p.bw, Up, p.G, dg, w->dh, 0);
            if (din && d) FN(dinputs)(p.bw + Up * p.G, g_rows, p.G, dg, ROW(din, t * g_rows), 1);
            else if (din) FN(dinputs)(p.bw + Up * p.G, g_rows, p.G, dg, ROW(din, t * g_rows), 0);
        }
        FN(dweights)(w->dg, ROW(in, t0 * apart), apart * S, len, Up, in_rows, w->acc, 4 * K);
        long skip = !d && !t0, drop = d && t0 + len == T; /* the first step of a direction has no state before it */
        FN(dweights)(ROW(w->dg, skip * dg_apart), ROW(hs, (t0 + skip + (d ? 1 : -1)) * W), W * S, len - skip - drop,
                     Up, Up, w->acc + 4 * in_rows, 4 * K);
    }
    FN(unpack)(n, l, w->acc, w->db, dw + weights_at(n, l, d));
}

static void FN(backward)(const Net *n, long first, const float *packed, const float *state, const float *dout,
                         float *work, float *dw, float *dx) {
    const long Up = n->Up, width = n->both ? 2 * n->U : n->U, count = n->N - first < S ? n->N - first : S;
    FN(Work) w;
    w.d0 = work, w.d1 = w.d0 + n->T * 2 * Up * S, w.dxin = w.d1 + n->T * 2 * Up * S, w.dg = w.dxin + n->T * n->Dp * S;
    w.dh = w.dg + CHUNK_VECTORS / NV * (4 * Up + SKEW) * S, w.dc = w.dh + Up * S, w.db = w.dc + Up * S;
    w.acc = w.db + 4 * Up * LANES;
    memset(dw, 0, sizeof(float) * weights_at(n, n->L, 0));
    for (long l = n->L - 1; l >= 0; l--) {
        const long top = l == n->L - 1;
        float *upper = l % 2 ? w.d0 : w.d1, *lower = l ? (l % 2 ? w.d1 : w.d0) : (dx ? w.dxin : 0);
        if (top && !n->both && lower) memset(lower, 0, sizeof(float) * n->T * rows_grad(n, l) * S);
        for (long d = top && !n->both; d < 2; d++) {
            memset(w.dh, 0, sizeof(float) * Up * S);
            for (long s = 0; top && s < count; s++)
                for (long u = 0; u < n->U; u++)
                    ROW(w.dh, u)[s] = dout[(first + s) * width + (n->both ? d * n->U : 0) + u];
            FN(layer_back)(n, l, d, packed, state, top ? 0 : upper, lower, &w, dw);
        }
    }
    for (long s = 0; dx && s < count; s++)
        for (long t = 0; t < n->T; t++)
            for (long k = 0; k < n->D; k++) dx[((first + s) * n->T + t) * n->D + k] = ROW(w.dxin, t * n->Dp + k)[s];
}
#undef TP
#undef ROW
#undef VEC
#endif
