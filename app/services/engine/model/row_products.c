/* A product of matrices as CBLAS has it, in which products of few rows are computed by the routine for vectors.
 *
 * Each step of an answer multiplies one row, or a few, with all weights. OpenBLAS' `cblas_sgemm` first copies the
 * weights into the order that its kernels for large products want, which takes longer than the product of few rows
 * itself. Its `cblas_sgemv` reads them as they lie. MLX calls only the former, so it is given this one in its place
 * (`row_products.py`).
 */

enum { ROW_MAJOR = 101, AS_IT_IS = 111, TRANSPOSED = 112 };

/* From three rows on, reading the weights once and copying them is about as fast; where weights are not transposed,
 * or fewer than these, it is as fast with one row. Measured with OpenBLAS 0.3.21 on x86-64 (docs/decisions.md). */
enum { MOST_ROWS = 2, LEAST_WEIGHTS = 1 << 16 };

/* OpenBLAS wakes its threads for any product of more weights than these. Where other programs are busy, waiting for a
 * thread takes longer than a small product, so those are computed in pieces, each too small for that. */
enum { LEAST_FOR_THREADS = 1 << 20, MOST_OF_A_PIECE = 9215 };

typedef void (*Product)(int order, int transpose_a, int transpose_b, int rows, int columns, int inner, float alpha,
                        const float *a, int row_of_a, const float *b, int row_of_b, float beta, float *c, int row_of_c);
typedef void (*VectorProduct)(int order, int transpose, int rows, int columns, float alpha, const float *matrix,
                              int row_of_matrix, const float *x, int step_of_x, float beta, float *y, int step_of_y);

static Product product;
static VectorProduct vector_product;

/* Set whose routines compute: before the first product. */
void tiles_set_routines(Product of_matrices, VectorProduct of_vectors)
{
    product = of_matrices;
    vector_product = of_vectors;
}

/* c = alpha * a @ b + beta * c, as cblas_sgemm. */
void tiles_sgemm(int order, int transpose_a, int transpose_b, int rows, int columns, int inner, float alpha,
                 const float *a, int row_of_a, const float *b, int row_of_b, float beta, float *c, int row_of_c)
{
    if (order != ROW_MAJOR || transpose_a != AS_IT_IS || transpose_b != TRANSPOSED || rows > MOST_ROWS
        || (long)columns * inner < LEAST_WEIGHTS) {
        product(order, transpose_a, transpose_b, rows, columns, inner, alpha, a, row_of_a, b, row_of_b, beta, c,
                row_of_c);
        return;
    }
    int piece = columns;
    if ((long)columns * inner < LEAST_FOR_THREADS)
        piece = inner < MOST_OF_A_PIECE ? MOST_OF_A_PIECE / inner : 1;
    for (int start = 0; start < columns; start += piece) {
        int width = columns - start < piece ? columns - start : piece;
        for (int row = 0; row < rows; row++)
            vector_product(ROW_MAJOR, AS_IT_IS, width, inner, alpha, b + (long)start * row_of_b, row_of_b,
                           a + (long)row * row_of_a, 1, beta, c + (long)row * row_of_c + start, 1);
    }
}
