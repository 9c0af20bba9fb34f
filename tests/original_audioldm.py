"""The original AudioLDM's modules, small: their names and what they compute, nothing of ours.

Written after the description of github.com/haoheliu/AudioLDM (``openaimodel``, ``attention``, the
VAE's ``modules``, HiFi-GAN), so that a checkpoint of its form can be made and compared in numbers.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers import RobertaConfig, RobertaModel


class Residual(nn.Module):
    def __init__(self, into, out, emb):
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(32, into), nn.SiLU(), nn.Conv2d(into, out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb, out))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, out), nn.SiLU(), nn.Dropout(0.0), nn.Conv2d(out, out, 3, padding=1)
        )
        self.skip_connection = nn.Conv2d(into, out, 1) if into != out else nn.Identity()

    def forward(self, x, emb):
        h = self.in_layers(x) + self.emb_layers(emb)[..., None, None]
        return self.skip_connection(x) + self.out_layers(h)


class SelfAttention(nn.Module):
    def __init__(self, dim, width):
        super().__init__()
        self.heads = dim // width
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(dim, dim), nn.Dropout(0.0))

    def forward(self, x):
        q, k, v = (f(x).unflatten(2, (self.heads, -1)) for f in (self.to_q, self.to_k, self.to_v))
        weights = torch.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5
        return self.to_out(torch.einsum("bhij,bjhd->bihd", weights.softmax(-1), v).flatten(2))


class GatedLinear(nn.Module):
    def __init__(self, into, out):
        super().__init__()
        self.proj = nn.Linear(into, 2 * out)

    def forward(self, x):
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.net = nn.Sequential(
            GatedLinear(dim, 4 * dim), nn.Dropout(0.0), nn.Linear(4 * dim, dim)
        )

    def forward(self, x):
        return self.net(x)


class TransformerBlock(nn.Module):
    def __init__(self, dim, width):
        super().__init__()
        self.attn1, self.attn2 = SelfAttention(dim, width), SelfAttention(dim, width)
        self.ff = FeedForward(dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))

    def forward(self, x):
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x))
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    def __init__(self, dim, width):
        super().__init__()
        self.norm = nn.GroupNorm(32, dim, eps=1e-6)
        self.proj_in, self.proj_out = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(dim, width)])

    def forward(self, x, _emb):
        h = self.proj_in(self.norm(x))
        h = self.transformer_blocks[0](h.flatten(2).mT).mT.reshape(x.shape)
        return x + self.proj_out(h)


class Downsample(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.op = nn.Conv2d(dim, dim, 3, stride=2, padding=1)

    def forward(self, x, _emb):
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x, _emb=None):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Convolution(nn.Conv2d):
    def forward(self, x, _emb):
        return super().forward(x)


class UNet(nn.Module):
    """`mult` per level, attention from the second level on, heads of 32 channels."""

    def __init__(self, latents=4, channels=32, mult=(1, 2, 3), layers=2, condition=16, width=32):
        super().__init__()
        self.channels = channels
        emb = 4 * channels
        self.time_embed = nn.Sequential(nn.Linear(channels, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.film_emb = nn.Linear(condition, emb)

        def level(into, out, number):
            attention = [SpatialTransformer(out, width)] if number else []
            return [Residual(into, out, 2 * emb), *attention]

        blocks, skips, dim = [[Convolution(latents, channels, 3, padding=1)]], [channels], channels
        for number, factor in enumerate(mult):
            for _ in range(layers):
                blocks.append(level(dim, factor * channels, number))
                dim = factor * channels
                skips.append(dim)
            if number < len(mult) - 1:
                blocks.append([Downsample(dim)])
                skips.append(dim)
        self.input_blocks = nn.ModuleList(nn.ModuleList(block) for block in blocks)
        self.middle_block = nn.ModuleList(
            [
                Residual(dim, dim, 2 * emb),
                SpatialTransformer(dim, width),
                Residual(dim, dim, 2 * emb),
            ]
        )
        blocks = []
        for number, factor in reversed(list(enumerate(mult))):
            for i in range(layers + 1):
                block = level(dim + skips.pop(), factor * channels, number)
                dim = factor * channels
                if number and i == layers:
                    block.append(Upsample(dim))
                blocks.append(block)
        self.output_blocks = nn.ModuleList(nn.ModuleList(block) for block in blocks)
        self.out = nn.Sequential(
            nn.GroupNorm(32, dim), nn.SiLU(), nn.Conv2d(dim, latents, 3, padding=1)
        )

    def forward(self, x, t, condition):
        half = self.channels // 2
        angles = t[:, None] * torch.exp(-math.log(10_000) * torch.arange(half) / half)
        emb = self.time_embed(torch.cat([angles.cos(), angles.sin()], dim=1))
        emb = torch.cat([emb, self.film_emb(condition)], dim=1)
        kept = []
        for block in self.input_blocks:
            for layer in block:
                x = layer(x, emb)
            kept.append(x)
        for layer in self.middle_block:
            x = layer(x, emb)
        for block in self.output_blocks:
            x = torch.cat([x, kept.pop()], dim=1)
            for layer in block:
                x = layer(x, emb)
        return self.out(x)


class VaeResidual(nn.Module):
    def __init__(self, into, out):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(32, into, 1e-6), nn.GroupNorm(32, out, 1e-6)
        self.conv1 = nn.Conv2d(into, out, 3, padding=1)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        if into != out:
            self.nin_shortcut = nn.Conv2d(into, out, 1)

    def forward(self, x):
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class VaeAttention(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm = nn.GroupNorm(32, dim, 1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(dim, dim, 1) for _ in range(4))

    def forward(self, x):
        h = self.norm(x)
        q, k, v = (f(h).flatten(2) for f in (self.q, self.k, self.v))
        weights = (q.mT @ k * x.shape[1] ** -0.5).softmax(-1)
        return x + self.proj_out((v @ weights.mT).reshape(x.shape))


class VaeDownsample(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, stride=2)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class VaeHalf(nn.Module):
    """The encoder, or the decoder."""

    def __init__(self, into, widths, out, layers, sampler):
        super().__init__()
        down = sampler == "downsample"
        dim = widths[0] if down else widths[-1]
        self.conv_in = nn.Conv2d(into, dim, 3, padding=1)
        levels = [None] * len(widths)
        order = range(len(widths)) if down else reversed(range(len(widths)))

        def middle(dim):
            mid = nn.Module()
            mid.block_1, mid.attn_1 = VaeResidual(dim, dim), VaeAttention(dim)
            mid.block_2 = VaeResidual(dim, dim)
            return mid

        if not down:
            self.mid = middle(dim)
        for number in order:
            level = nn.Module()
            level.block = nn.ModuleList()
            for _ in range(layers + (not down)):
                level.block.append(VaeResidual(dim, widths[number]))
                dim = widths[number]
            if number != (len(widths) - 1 if down else 0):
                setattr(level, sampler, VaeDownsample(dim) if down else Upsample(dim))
            levels[number] = level
        setattr(self, "down" if down else "up", nn.ModuleList(levels))
        if down:
            self.mid = middle(dim)
        self.norm_out = nn.GroupNorm(32, dim, 1e-6)
        self.conv_out = nn.Conv2d(dim, out, 3, padding=1)

    def _middle(self, x):
        return self.mid.block_2(self.mid.attn_1(self.mid.block_1(x)))

    def forward(self, x):
        x = self.conv_in(x)
        down = hasattr(self, "down")
        if not down:
            x = self._middle(x)
        for level in self.down if down else reversed(self.up):
            for block in level.block:
                x = block(x)
            sampler = getattr(level, "downsample" if down else "upsample", None)
            x = sampler(x) if sampler else x
        if down:
            x = self._middle(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class VocoderBlock(nn.Module):
    def __init__(self, dim, kernel):
        super().__init__()
        self.convs1 = nn.ModuleList(
            nn.Conv1d(dim, dim, kernel, dilation=d, padding=(kernel - 1) * d // 2)
            for d in (1, 3, 5)
        )
        self.convs2 = nn.ModuleList(
            nn.Conv1d(dim, dim, kernel, padding=(kernel - 1) // 2) for _ in range(3)
        )

    def forward(self, x):
        for first, second in zip(self.convs1, self.convs2, strict=True):
            x = x + second(F.leaky_relu(first(F.leaky_relu(x, 0.1)), 0.1))
        return x


class Vocoder(nn.Module):
    def __init__(self, channels=32):
        super().__init__()
        rates, kernels = (5, 4, 2, 2, 2), (16, 16, 8, 4, 4)
        dims = [channels // 2**i for i in range(6)]
        self.conv_pre = nn.Conv1d(64, channels, 7, padding=3)
        self.ups = nn.ModuleList(
            nn.ConvTranspose1d(
                dims[i], dims[i + 1], kernels[i], rates[i], (kernels[i] - rates[i]) // 2
            )
            for i in range(5)
        )
        self.resblocks = nn.ModuleList(VocoderBlock(d, k) for d in dims[1:] for k in (3, 7, 11))
        self.conv_post = nn.Conv1d(dims[-1], 1, 7, padding=3)

    def forward(self, x):
        x = self.conv_pre(x)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, 0.1))
            x = sum(block(x) for block in self.resblocks[3 * i : 3 * i + 3]) / 3
        return torch.tanh(self.conv_post(F.leaky_relu(x)))


class Vae(nn.Module):
    def __init__(self, widths=(32, 64), latents=4, layers=2):
        super().__init__()
        self.encoder = VaeHalf(1, widths, 2 * latents, layers, "downsample")
        self.decoder = VaeHalf(latents, widths, 1, layers, "upsample")
        self.quant_conv = nn.Conv2d(2 * latents, 2 * latents, 1)
        self.post_quant_conv = nn.Conv2d(latents, latents, 1)
        self.vocoder = Vocoder()


class Clap(nn.Module):
    def __init__(self, condition=16):
        super().__init__()
        self.text_branch = RobertaModel(
            RobertaConfig(
                vocab_size=1000,
                hidden_size=64,
                num_hidden_layers=2,
                num_attention_heads=1,
                intermediate_size=96,
                max_position_embeddings=130,
                type_vocab_size=1,
                layer_norm_eps=1e-5,
            )
        )
        self.text_projection = nn.Sequential(
            nn.Linear(64, condition), nn.ReLU(), nn.Linear(condition, condition)
        )
        self.audio_projection = nn.Linear(2, 2)

    def forward(self, **tokens):
        return self.text_projection(self.text_branch(**tokens).pooler_output)


class OriginalAudioLDM(nn.Module):
    """All of it, under the names of the original's LightningModule."""

    def __init__(self):
        super().__init__()
        self.model = nn.Module()
        self.model.diffusion_model = UNet()
        self.first_stage_model = Vae()
        self.cond_stage_model = nn.Module()
        self.cond_stage_model.model = Clap()
        betas = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64) ** 2
        self.register_buffer("betas", betas.float())
        self.register_buffer("alphas_cumprod", (1 - betas).cumprod(0).float())
        self.register_buffer("scale_factor", torch.tensor(0.9227))
        # As old versions of transformers saved it.
        self.cond_stage_model.model.text_branch.embeddings.register_buffer(
            "position_ids", torch.arange(130)[None]
        )
