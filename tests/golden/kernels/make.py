"""Writes peers.h: answers of PyTorch and diffusers to small questions, for tests/kernels/test_peers.c.

    python tests/golden/kernels/make.py > tests/golden/kernels/peers.h
"""
import textwrap

import torch
from diffusers import DDIMScheduler
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.training_utils import EMAModel

torch.manual_seed(5)


def array(name, t, kind="float"):
    t = t.detach().double().flatten().tolist()
    text = ", ".join(str(int(v)) if kind == "int32_t" else f"{v:.9g}" for v in t)
    line = f"static const {kind} {name}[{len(t)}] = {{{text}}};"
    print("\n".join(textwrap.wrap(line, 100, subsequent_indent="    ")))


print("/* peers.h - made by make.py with torch %s; not edited by hand. */" % torch.__version__.split("+")[0])
print("#include <stdint.h>")

# Optimizers: five elements, six steps, gradients scaled by a half as clipping would.
value = torch.randn(5)
grads = torch.randn(6, 5)
array("opt_value", value)
array("opt_grad", grads)
p = torch.nn.Parameter(value.clone())
ema = EMAModel([p], decay=0.7)
adamw = torch.optim.AdamW([p], lr=0.02, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
for g in grads:
    p.grad = 0.5 * g
    adamw.step()
    ema.step([p])
array("opt_adamw", p)
array("opt_adamw_ema", ema.shadow_params[0])
p = torch.nn.Parameter(value.clone())
sgd = torch.optim.SGD([p], lr=0.02, momentum=0.9, weight_decay=0.1, nesterov=True)
for g in grads:
    p.grad = 0.5 * g
    sgd.step()
array("opt_sgd", p)

# Cross-entropy with weights, smoothing and a row left out.
logits = torch.randn(4, 3, requires_grad=True)
label = torch.tensor([2, -1, 0, 2])
weight = torch.tensor([0.5, 2.0, 1.25])
loss = torch.nn.functional.cross_entropy(logits, label, weight=weight, label_smoothing=0.1, ignore_index=-1)
loss.backward()
array("ce_logits", logits)
array("ce_label", label, "int32_t")
array("ce_weight", weight)
array("ce_loss", loss)
array("ce_grad", logits.grad)

# Pools, NHWC: maximum 3/2, mean 3/1 with padding; ties: the first maximum gets the gradient.
x = torch.randint(0, 3, (1, 5, 5, 2)).float()
nchw = x.permute(0, 3, 1, 2).contiguous().requires_grad_()
y, index = torch.nn.functional.max_pool2d(nchw, 3, 2, return_indices=True)
dy = torch.randn_like(y)
y.backward(dy)
array("pool_x", x)
array("pool_max", y.permute(0, 2, 3, 1))
array("pool_index", index.permute(0, 2, 3, 1), "int32_t")
array("pool_dy", dy.permute(0, 2, 3, 1))
array("pool_dx", nchw.grad.permute(0, 2, 3, 1))
array("pool_mean", torch.nn.functional.avg_pool2d(nchw, 3, 1, 1).permute(0, 2, 3, 1))

# Diffusion: time embedding of SD, and one DDIM step per kind of prediction.
array("time_embedding", get_timestep_embedding(torch.tensor([1, 981]), 8, flip_sin_to_cos=True, downscale_freq_shift=0))
x, pred, noise = torch.randn(3, 6).double()
array("ddim_x", x)
array("ddim_pred", pred)
array("ddim_noise", noise)
for kind in ("epsilon", "v_prediction"):
    s = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                      set_alpha_to_one=False, steps_offset=1, prediction_type=kind)
    s.set_timesteps(50)
    s.alphas_cumprod = s.alphas_cumprod.double()
    s.final_alpha_cumprod = s.final_alpha_cumprod.double()
    ab, ab_next = s.alphas_cumprod[501], s.alphas_cumprod[481]
    sigma = 0.5 * s._get_variance(501, 481) ** 0.5
    y = s.step(pred, 501, x, eta=0.5, variance_noise=noise).prev_sample
    if kind == "epsilon":
        array("ddim_coef", torch.stack([ab**0.5, (1 - ab) ** 0.5, ab_next**0.5, (1 - ab_next - sigma**2) ** 0.5,
                                        sigma, 0 * sigma]))
    array("ddim_" + kind, y)
