/* A product of matrices as CBLAS has it, in which products of few rows are computed here.
 *
 * Each step of an answer multiplies one row, or a few, with all weights. OpenBLAS' `cblas_sgemm` first copies the
 * weights into the order that its kernels for large products want, which takes longer than the product of few rows
 * itself. Here they are read once, as they lie. MLX calls only `cblas_sgemm`, so it is given this one in its place
 * (`row_products.py`).
 */

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { ROW_MAJOR = 101, AS_IT_IS = 111, TRANSPOSED = 112 };

enum {
    MOST_ROWS = 16, /* from some 24 on, copying the weights pays (docs/decisions.md) */
    ROWS = 4, /* that are computed together: the weights come from the cache for the others */
    PIECE = 1 << 18, /* multiplications that a thread takes at once: about 10 µs */
    WIDEST_TILE = 6,
    LEAST_FOR_THREADS = 1 << 20, /* multiplications: for fewer, waking a thread takes too long */
    SPINS = 1000, /* looks for work before a thread sleeps: about as long as MLX takes from one product to the next */
};

typedef struct {
    int rows, columns, inner; /* of a, and so of the product; rows of b, its columns; columns of both */
    float alpha, beta;
    const float *a, *b;
    float *c;
    long row_of_a, row_of_b, row_of_c; /* how far apart rows lie */
} Job;

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

INLINE void store(const Job *job, int row, int column, float sum)
{
    float *c = job->c + row * job->row_of_c + column;
    *c = job->alpha * sum + (job->beta != 0 ? job->beta * *c : 0);
}

typedef float Quarter __attribute__((vector_size(16), aligned(4), may_alias));

INLINE float sum_of_4(Quarter x)
{
    return (x[0] + x[2]) + (x[1] + x[3]);
}

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx2,fma"))) INLINE float sum_of_8(__m256 x)
{
    return sum_of_4((Quarter)_mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)));
}

#define NAME(x) avx512_##x
#define TARGET __attribute__((target("avx512f,fma")))
#define LANES 16
#define TILE 6
#define SUM(x) _mm512_reduce_add_ps((__m512)(x))
#include "row_products_kernel.h"

#define NAME(x) avx2_##x
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define TILE 3
#define SUM(x) sum_of_8((__m256)(x))
#include "row_products_kernel.h"
#endif

#define NAME(x) plain_##x
#define TARGET
#define LANES 4
#if defined(__x86_64__)
#define TILE 2
#else
#define TILE 6
#endif
#define SUM(x) sum_of_4(x)
#include "row_products_kernel.h"

typedef void (*Columns)(const Job *job, int start, int end);

static Columns columns_routine(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return avx512_columns;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return avx2_columns;
#endif
    return plain_columns;
}

/* Threads that help with one product at a time. Whoever is free takes the next piece of it, so that a thread that does
 * not get a core holds nobody up. The product is over when all pieces are taken and nobody is at one any more. */
static struct {
    Job job;
    Columns columns;
    int piece;                       /* columns */
    int threads;                     /* that were started */
    atomic_int limit;                /* threads that may help */
    atomic_int next, active, is_open; /* the next column; threads that look for pieces; whether there may be some */
    atomic_uint product;             /* counts them */
    atomic_int sleeping;
    atomic_flag is_taken;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
} pool = {.is_taken = ATOMIC_FLAG_INIT, .mutex = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static inline void pause_a_little(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_pieces(void)
{
    for (;;) {
        int start = atomic_fetch_add(&pool.next, pool.piece), end = start + pool.piece;
        if (start >= pool.job.columns)
            return;
        pool.columns(&pool.job, start, end < pool.job.columns ? end : pool.job.columns);
    }
}

static unsigned wait_for_product(unsigned last)
{
    for (int spin = 0; spin < SPINS; spin++) {
        if (atomic_load(&pool.product) != last)
            return atomic_load(&pool.product);
        pause_a_little();
    }
    pthread_mutex_lock(&pool.mutex);
    atomic_fetch_add(&pool.sleeping, 1);
    while (atomic_load(&pool.product) == last)
        pthread_cond_wait(&pool.wake, &pool.mutex);
    atomic_fetch_sub(&pool.sleeping, 1);
    pthread_mutex_unlock(&pool.mutex);
    return atomic_load(&pool.product);
}

static void *help(void *number)
{
    for (unsigned last = 0;;) {
        last = wait_for_product(last);
        if ((long)number >= atomic_load(&pool.limit))
            continue;
        atomic_fetch_add(&pool.active, 1);
        if (atomic_load(&pool.is_open))
            take_pieces();
        atomic_fetch_sub(&pool.active, 1);
    }
    return 0;
}

static void start_threads(int count)
{
    pthread_t thread;
    while (pool.threads < count && !pthread_create(&thread, 0, help, (void *)(long)pool.threads)) {
        pthread_detach(thread);
        pool.threads++;
    }
}

static void compute_together(const Job *job, Columns columns, int threads)
{
    start_threads(threads - 1);
    pool.job = *job;
    pool.columns = columns;
    pool.piece = PIECE / job->rows / job->inner / WIDEST_TILE * WIDEST_TILE;
    if (!pool.piece)
        pool.piece = WIDEST_TILE;
    atomic_store(&pool.limit, threads - 1);
    atomic_store(&pool.next, 0);
    atomic_store(&pool.is_open, 1);
    atomic_fetch_add(&pool.product, 1);
    if (atomic_load(&pool.sleeping)) {
        pthread_mutex_lock(&pool.mutex);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.mutex);
    }
    take_pieces();
    atomic_store(&pool.is_open, 0);
    for (int spin = 0; atomic_load(&pool.active); spin++)
        if (spin < SPINS)
            pause_a_little();
        else
            sched_yield();
}

typedef void (*Product)(int order, int transpose_a, int transpose_b, int rows, int columns, int inner, float alpha,
                        const float *a, int row_of_a, const float *b, int row_of_b, float beta, float *c, int row_of_c);
typedef int (*Threads)(void);

/* Of the sources, by which a library that is older than these is known (`row_products.py`). */
const char tiles_version[] = VERSION;

static Product product;
static Threads most_threads;

/* Set what computes all other products, and what says how many threads may: before the first product. */
void tiles_set_routines(Product of_matrices, Threads threads)
{
    product = of_matrices;
    most_threads = threads;
}

/* c = alpha * a @ b + beta * c, as cblas_sgemm. */
void tiles_sgemm(int order, int transpose_a, int transpose_b, int rows, int columns, int inner, float alpha,
                 const float *a, int row_of_a, const float *b, int row_of_b, float beta, float *c, int row_of_c)
{
    if (order != ROW_MAJOR || transpose_a != AS_IT_IS || transpose_b != TRANSPOSED || rows > MOST_ROWS) {
        product(order, transpose_a, transpose_b, rows, columns, inner, alpha, a, row_of_a, b, row_of_b, beta, c,
                row_of_c);
        return;
    }
    Job job = {rows, columns, inner, alpha, beta, a, b, c, row_of_a, row_of_b, row_of_c};
    Columns routine = columns_routine();
    int threads = (long)rows * columns * inner >= LEAST_FOR_THREADS ? most_threads() : 1;
    if (threads > 1 && !atomic_flag_test_and_set(&pool.is_taken)) {
        compute_together(&job, routine, threads);
        atomic_flag_clear(&pool.is_taken);
    } else
        routine(&job, 0, columns);
}
