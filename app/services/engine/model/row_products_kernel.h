/* The products of few rows in vectors of one width, for `row_products.c`, which includes this once for each width.
 *
 * It defines LANES, how many floats a vector has; TILE, how many vectors are added up beside each other for each row
 * of a, as the registers allow; TARGET, what the processor needs; and NAME(x), which makes names different.
 *
 * Each number of the product is added up in one order, whatever rows and columns are computed beside it.
 */

typedef float NAME(vector) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* `rows` of a times `columns` rows of b. Both are constants where this is called. */
TARGET INLINE void NAME(tile)(const Job *job, int row, int column, const int rows, const int columns)
{
    NAME(vector) sums[ROWS][TILE] = {{{0}}};
    const float *a = job->a + row * job->row_of_a, *b = job->b + column * job->row_of_b;
    int k = 0;
    for (; k + LANES <= job->inner; k += LANES) {
        NAME(vector) weights[TILE];
        UNROLL for (int j = 0; j < columns; j++)
            weights[j] = *(const NAME(vector) *)(b + j * job->row_of_b + k);
        UNROLL for (int i = 0; i < rows; i++) {
            NAME(vector) x = *(const NAME(vector) *)(a + i * job->row_of_a + k);
            UNROLL for (int j = 0; j < columns; j++)
                sums[i][j] += weights[j] * x;
        }
    }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < columns; j++) {
            float sum = SUM(sums[i][j]);
            for (int rest = k; rest < job->inner; rest++)
                sum += a[i * job->row_of_a + rest] * b[j * job->row_of_b + rest];
            store(job, row + i, column + j, sum);
        }
}

/* The rows of b from one on, and before another. */
TARGET static void NAME(columns)(const Job *job, int column, int end)
{
    for (int width; column < end; column += width) {
        width = end - column < TILE ? 1 : TILE;
        for (int row = 0; row < job->rows; row += ROWS) {
            int rows = job->rows - row;
            if (width == 1)
                switch (rows) {
                case 1: NAME(tile)(job, row, column, 1, 1); break;
                case 2: NAME(tile)(job, row, column, 2, 1); break;
                case 3: NAME(tile)(job, row, column, 3, 1); break;
                default: NAME(tile)(job, row, column, 4, 1);
                }
            else
                switch (rows) {
                case 1: NAME(tile)(job, row, column, 1, TILE); break;
                case 2: NAME(tile)(job, row, column, 2, TILE); break;
                case 3: NAME(tile)(job, row, column, 3, TILE); break;
                default: NAME(tile)(job, row, column, 4, TILE);
                }
        }
    }
}

#undef LANES
#undef NAME
#undef SUM
#undef TARGET
#undef TILE
