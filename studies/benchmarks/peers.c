/* The peers in C: runs of gradient descent, Adam, Euler-Richardson and energy-guarded descent on
   R(w, b) = 1/4 (g(b)^2 + g(w + b)^2), one after the other, and the first two over lanes.

   Compiled with -DPOLY=3 or 5. Each function runs the starts first, ..., last - 1, leaves the steps attempted in
   `steps` and the ends in w and b, and ends a run as flowopt does: gradient below tol, not finite, or max_steps. */
#include <math.h>

#if POLY == 3
static inline double g(double z) { return z * z * (2 * z - 3) + 5; }
static inline double dg(double z) { return z * (6 * z - 6); }
#else
static inline double g(double z) { return ((((z - 4) * z + 2) * z + 8) * z - 11) * z - 12; }
static inline double dg(double z) { return (((5 * z - 16) * z + 6) * z + 16) * z - 11; }
#endif

typedef struct { double value, w, b; } At;

static inline At at(double w, double b) {
    double u = g(b), s = g(w + b), du = 0.5 * u * dg(b), ds = 0.5 * s * dg(w + b);
    return (At){0.25 * (u * u + s * s), ds, ds + du};
}

static inline int over(At p, double w, double b, double tol, int n, int max_steps) {
    double squares = p.w * p.w + p.b * p.b;
    return !isfinite(squares + p.value + w * w + b * b) || sqrt(squares) < tol || n >= max_steps;
}

void gd(long first, long last, double *w, double *b, int *steps, double lr, double tol, int max_steps) {
    for (long i = first; i < last; i++) {
        double x = w[i], y = b[i];
        int n = 0;
        At p = at(x, y);
        for (; !over(p, x, y, tol, n, max_steps); n++) {
            x -= lr * p.w, y -= lr * p.b;
            p = at(x, y);
        }
        w[i] = x, b[i] = y, steps[i] = n;
    }
}

void adam(long first, long last, double *w, double *b, int *steps, double lr, double tol, int max_steps) {
    const double b1 = 0.9, b2 = 0.999, eps = 1e-8;
    for (long i = first; i < last; i++) {
        double x = w[i], y = b[i], mx = 0, my = 0, sx = 0, sy = 0, p1 = 1, p2 = 1;
        int n = 0;
        At p = at(x, y);
        for (; !over(p, x, y, tol, n, max_steps); n++) {
            mx = b1 * mx + (1 - b1) * p.w, my = b1 * my + (1 - b1) * p.b;
            sx = b2 * sx + (1 - b2) * p.w * p.w, sy = b2 * sy + (1 - b2) * p.b * p.b;
            p1 *= b1, p2 *= b2;
            double c1 = lr / (1 - p1), c2 = 1 / (1 - p2);
            x -= c1 * mx / (sqrt(sx * c2) + eps), y -= c1 * my / (sqrt(sy * c2) + eps);
            p = at(x, y);
        }
        w[i] = x, b[i] = y, steps[i] = n;
    }
}

/* The midpoint pair, under h <- 0.9 h sqrt(bound/e); `bound` is on the error's 2-norm, the first h is 0.1. */
void euler_richardson(long first, long last, double *w, double *b, int *steps, double bound, double tol, int max_steps) {
    for (long i = first; i < last; i++) {
        double x = w[i], y = b[i], h = 0.1;
        int n = 0;
        At p = at(x, y);
        for (; !over(p, x, y, tol, n, max_steps); n++) {
            At k = at(x - 0.5 * h * p.w, y - 0.5 * h * p.b);
            double ex = 0.5 * h * (p.w - k.w), ey = 0.5 * h * (p.b - k.b);
            double e = sqrt(ex * ex + ey * ey) / bound;
            double factor = e > 0 ? 0.9 * sqrt(1 / e) : 10;
            if (!isfinite(e)) factor = 0.1;
            if (e <= 1) {
                double x1 = x - h * k.w, y1 = y - h * k.b;
                if (x1 == x && y1 == y && factor <= 1) break;
                x = x1, y = y1, p = at(x, y);
            } else
                factor = fmin(factor, 0.9);
            h *= factor;
        }
        w[i] = x, b[i] = y, steps[i] = n;
    }
}

/* Euler, kept where R1 - R0 <= -h |grad|^2/2, under h <- h clip(0.5/e, 0.2, 10), e = 2 (1 - r); the first h as given. */
void guarded(long first, long last, double *w, double *b, int *steps, double h0, double tol, int max_steps) {
    for (long i = first; i < last; i++) {
        double x = w[i], y = b[i], h = h0;
        int n = 0;
        At p = at(x, y);
        for (; !over(p, x, y, tol, n, max_steps); n++) {
            double x1 = x - h * p.w, y1 = y - h * p.b, promised = h * (p.w * p.w + p.b * p.b);
            At q = at(x1, y1);
            double slack = 4 * 2.220446049250313e-16 * fmax(fabs(p.value), fabs(q.value));
            double e = fmax(q.value - p.value + promised - slack, 0) / (0.5 * promised);
            if (!isfinite(q.value)) e = INFINITY;
            double factor = e > 0 ? (isfinite(e) ? 0.5 / e : 0.2) : 10;
            factor = fmin(fmax(factor, 0.2), 10);
            if (e <= 1) {
                if (x1 == x && y1 == y && factor <= 1) break;
                x = x1, y = y1, p = q;
            } else
                factor = fmin(factor, 0.5);
            h *= factor;
        }
        w[i] = x, b[i] = y, steps[i] = n;
    }
}

/* Over lanes: LANES runs side by side until the last of them has ended, in vectors of whatever the machine has. */
#define LANES 64

void gd_lanes(long first, long last, double *w, double *b, int *steps, double lr, double tol, int max_steps) {
    for (long i = first; i + LANES <= last; i += LANES) {
        double x[LANES], y[LANES], live[LANES], n[LANES], running = LANES;
        for (int k = 0; k < LANES; k++) x[k] = w[i + k], y[k] = b[i + k], live[k] = 1, n[k] = 0;
        for (int j = 0; j <= max_steps && running > 0; j++) {
            running = 0;
            for (int k = 0; k < LANES; k++) {
                At p = at(x[k], y[k]);
                double squares = p.w * p.w + p.b * p.b, size = squares + p.value + x[k] * x[k] + y[k] * y[k];
                /* size - size is 0 where it is finite, and nothing else; a NaN compares as false. */
                live[k] = (size - size == 0) & (squares >= tol * tol) & (n[k] < max_steps) ? live[k] : 0;
                x[k] = live[k] > 0 ? x[k] - lr * p.w : x[k];
                y[k] = live[k] > 0 ? y[k] - lr * p.b : y[k];
                n[k] += live[k], running += live[k];
            }
        }
        for (int k = 0; k < LANES; k++) w[i + k] = x[k], b[i + k] = y[k], steps[i + k] = (int)n[k];
    }
}

void adam_lanes(long first, long last, double *w, double *b, int *steps, double lr, double tol, int max_steps) {
    const double b1 = 0.9, b2 = 0.999, eps = 1e-8;
    for (long i = first; i + LANES <= last; i += LANES) {
        double x[LANES], y[LANES], mx[LANES], my[LANES], sx[LANES], sy[LANES], live[LANES], n[LANES];
        double p1 = 1, p2 = 1, running = LANES;
        for (int k = 0; k < LANES; k++)
            x[k] = w[i + k], y[k] = b[i + k], mx[k] = my[k] = sx[k] = sy[k] = n[k] = 0, live[k] = 1;
        for (int j = 0; j <= max_steps && running > 0; j++) {
            /* All began together, so they are as far: the corrections are the same for all. */
            p1 *= b1, p2 *= b2;
            double c1 = lr / (1 - p1), c2 = 1 / (1 - p2);
            running = 0;
            for (int k = 0; k < LANES; k++) {
                At p = at(x[k], y[k]);
                double squares = p.w * p.w + p.b * p.b, size = squares + p.value + x[k] * x[k] + y[k] * y[k];
                live[k] = (size - size == 0) & (squares >= tol * tol) & (n[k] < max_steps) ? live[k] : 0;
                mx[k] = b1 * mx[k] + (1 - b1) * p.w, my[k] = b1 * my[k] + (1 - b1) * p.b;
                sx[k] = b2 * sx[k] + (1 - b2) * p.w * p.w, sy[k] = b2 * sy[k] + (1 - b2) * p.b * p.b;
                x[k] = live[k] > 0 ? x[k] - c1 * mx[k] / (sqrt(sx[k] * c2) + eps) : x[k];
                y[k] = live[k] > 0 ? y[k] - c1 * my[k] / (sqrt(sy[k] * c2) + eps) : y[k];
                n[k] += live[k], running += live[k];
            }
        }
        for (int k = 0; k < LANES; k++) w[i + k] = x[k], b[i + k] = y[k], steps[i + k] = (int)n[k];
    }
}
