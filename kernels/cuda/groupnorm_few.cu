/* groupnorm_few.cu - group normalisation of groups of at most 8 values, in double: the coarsest
 * level of a narrow network on a small image. Why double: kernels/cpu/groupnorm.c.
 *
 * A thread takes a group. Such tensors are small, so the launch is the cost.
 */
#include "device.cuh"
#include "groupnorm_few.cuh"
#include "kernels_point.h"

static const int THREADS = 64;

struct Few {
    const float *gain, *bias;
    size_t n;
    int hw, c, groups;
    double eps;
    Act act;
};

DEVICE double sigmoid(double z) { return 1 / (1 + exp(-z)); }

DEVICE double act_value(double z, Act act)
{
    return act == ACT_SILU ? z * sigmoid(z) : act == ACT_RELU && z < 0 ? 0 : z;
}

DEVICE double act_slope(double z, Act act)
{
    double l = sigmoid(z);
    return act == ACT_SILU ? l * (1 + z * (1 - l)) : act == ACT_RELU && !(z > 0) ? 0 : 1;
}

/* The i-th value's place and channel in this thread's group. */
struct Place {
    size_t at;
    int channel;
};
DEVICE Place place(const Few &f, size_t image, int group, int i)
{
    int per = f.c / f.groups, channel = group * per + i % per;
    return {(image * f.hw + i / per) * f.c + channel, channel};
}

/* mean and 1 / sqrt(variance + eps) */
template <class T>
DEVICE double2 few_stats(const Few &f, const T *x, size_t image, int group, int count)
{
    double sum = 0, square = 0;
    for (int i = 0; i < count; i++) sum += to_float(x[place(f, image, group, i).at]);
    double mean = sum / count;
    for (int i = 0; i < count; i++) {
        double d = to_float(x[place(f, image, group, i).at]) - mean;
        square += d * d;
    }
    return make_double2(mean, 1 / sqrt(square / count + f.eps));
}

template <class T> static __global__ void few_kernel(T *y, float *stats, const T *x, Few f)
{
    size_t index = blockIdx.x * (size_t)THREADS + threadIdx.x, image = index / f.groups;
    int group = (int)(index % f.groups), count = f.hw * (f.c / f.groups);
    if (image >= f.n) return;
    double2 s = few_stats(f, x, image, group, count);
    stats[2 * index] = (float)s.x;
    stats[2 * index + 1] = (float)s.y;
    for (int i = 0; i < count; i++) {
        Place p = place(f, image, group, i);
        double z = (to_float(x[p.at]) - s.x) * s.y * f.gain[p.channel] + f.bias[p.channel];
        y[p.at] = from_float<T>((float)act_value(z, f.act));
    }
}

/* share_bias, share_gain[n][c]: the image's part of dbias and dgain */
template <class T>
static __global__ void few_dx_kernel(T *dx, float *share_bias, float *share_gain, const T *dy,
                                     const T *x, Few f)
{
    size_t index = blockIdx.x * (size_t)THREADS + threadIdx.x, image = index / f.groups;
    int group = (int)(index % f.groups), per = f.c / f.groups, count = f.hw * per;
    if (image >= f.n) return;
    double2 s = few_stats(f, x, image, group, count);
    double dz[FEW], xhat[FEW], shift = 0, slope = 0;
    for (int k = 0; k < per; k++) {
        double sum = 0, product = 0;
        for (int i = k; i < count; i += per) {
            Place p = place(f, image, group, i);
            xhat[i] = (to_float(x[p.at]) - s.x) * s.y;
            double z = xhat[i] * f.gain[p.channel] + f.bias[p.channel];
            dz[i] = to_float(dy[p.at]) * act_slope(z, f.act);
            sum += dz[i];
            product += dz[i] * xhat[i];
        }
        int channel = group * per + k;
        shift += f.gain[channel] * sum;
        slope += f.gain[channel] * product;
        share_bias[image * f.c + channel] = (float)sum;
        share_gain[image * f.c + channel] = (float)product;
    }
    for (int i = 0; i < count; i++) {
        Place p = place(f, image, group, i);
        double d = f.gain[p.channel] * dz[i] - shift / count - xhat[i] * slope / count;
        dx[p.at] = from_float<T>((float)(s.y * d));
    }
}

static unsigned blocks(const Few &f)
{
    return (unsigned)((f.n * f.groups + THREADS - 1) / THREADS);
}

template <class T>
static Status forward(void *y, float *stats, const void *x, const Few &f, Stream *s)
{
    few_kernel<T><<<blocks(f), THREADS, 0, s->handle>>>((T *)y, stats, (const T *)x, f);
    return launched("groupnorm");
}

template <class T>
static Status backward(void *dx, float *share_bias, float *share_gain, const void *dy,
                       const void *x, const Few &f, Stream *s)
{
    few_dx_kernel<T><<<blocks(f), THREADS, 0, s->handle>>>((T *)dx, share_bias, share_gain,
                                                           (const T *)dy, (const T *)x, f);
    return launched("groupnorm_dx");
}

Status groupnorm_few_fwd(void *y, float *stats, const void *x, const float *gain, const float *bias,
                         size_t n, size_t hw, int c, int groups, float eps, Act act, Dtype type,
                         Stream *s)
{
    Few f = {gain, bias, n, (int)hw, c, groups, eps, act};
    return BY_TYPE(type, forward, y, stats, x, f, s);
}

Status groupnorm_few_dx(void *dx, float *share_bias, float *share_gain, const void *dy,
                        const void *x, const float *gain, const float *bias, size_t n, size_t hw,
                        int c, int groups, float eps, Act act, Dtype type, Stream *s)
{
    Few f = {gain, bias, n, (int)hw, c, groups, eps, act};
    return BY_TYPE(type, backward, dx, share_bias, share_gain, dy, x, f, s);
}
