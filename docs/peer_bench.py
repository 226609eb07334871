"""The same work as `moslim-lab bench`, done by PyTorch, transformers and TRL on the CPU. Prints one line of JSON: seconds.

usage: peer_bench.py LAYERS D_MODEL HEADS KV_HEADS D_FF VOCABULARY RANK
RANK above 0 freezes the weights and trains adapters of that rank on all seven matrices (LoRA, by PEFT).
needs: torch, transformers, trl, datasets, and peft with a RANK (measured with 2.8.0, 4.57.1, 0.25.1, 4.4.1; with a RANK 2.15.0, 4.57.1, 0.25.1, 4.4.1, 0.21.2)

Run by `moslim-lab bench --peer python=PATH`, alternating with our own measurements.
"""

import json
import sys
import tempfile
import time

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import RLOOConfig, RLOOTrainer

layers, d_model, heads, kv_heads, d_ff, vocabulary, rank = map(int, sys.argv[1:8])
ROWS, TIME = (8, 256) if rank else (32, 64)  # training step and forward pass
ANSWERS, LENGTH, PROMPT = 32, 48, 16  # generation
PROMPTS, SAMPLES, NEW = (6, 8, 64) if rank else (32, 4, 40)  # one RLOO iteration
ITERATIONS = 3 if rank else 5
REPETITIONS = 3 if rank else 7

torch.manual_seed(0)
PAD, EOS = vocabulary - 2, vocabulary - 1
config = LlamaConfig(
    vocab_size=vocabulary, hidden_size=d_model, intermediate_size=d_ff, num_hidden_layers=layers,
    num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=256,
    tie_word_embeddings=rank > 0, pad_token_id=PAD, bos_token_id=EOS, eos_token_id=EOS,
)


def adapted(model):
    if not rank:
        return model
    from peft import LoraConfig, get_peft_model
    matrices = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=matrices, task_type="CAUSAL_LM"))


def median(work, repetitions=REPETITIONS):
    work()
    seconds = []
    for _ in range(repetitions):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return sorted(seconds)[len(seconds) // 2]


def training_step(model, optimizer, tokens):
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def forward(model, tokens):
    with torch.no_grad():
        logits = model(input_ids=tokens).logits[:, :-1]
        logits.log_softmax(-1).gather(-1, tokens[:, 1:, None])


def generation(model, prompts):
    with torch.no_grad():
        model.generate(prompts, attention_mask=torch.ones_like(prompts), do_sample=True, top_k=0, top_p=1.0,
                       min_new_tokens=LENGTH, max_new_tokens=LENGTH)


def rloo():
    """Seconds of a TRL RLOO iteration: sample, score with a multi-head classifier, update."""
    words = {f"w{i}": i for i in range(vocabulary - 3)} | {"<unk>": vocabulary - 3, "<pad>": PAD, "<eos>": EOS}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, model_input_names=["input_ids", "attention_mask"],
                                        pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left")
    folder = tempfile.mkdtemp()
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    trunk = LlamaForCausalLM(config).model.eval()
    head = torch.nn.Linear(d_model, 4 * 5)

    @torch.no_grad()
    def reward(prompts, completions, **_):
        both = [p + " " + c for p, c in zip(prompts, completions)]
        batch = tokenizer(both, return_tensors="pt", padding=True, truncation=True, max_length=PROMPT + NEW + 2)
        hidden = trunk(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state[:, -1]
        return head(hidden).view(-1, 4, 5).softmax(-1)[:, :, 4].mean(1).tolist()

    ends = []

    class Timed(RLOOTrainer):
        def training_step(self, *args, **kwargs):
            out = super().training_step(*args, **kwargs)
            ends.append(time.perf_counter())
            return out

    texts = [" ".join(f"w{(7 * i + j) % (vocabulary - 3)}" for j in range(PROMPT)) for i in range(PROMPTS * (ITERATIONS + 4))]
    arguments = RLOOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=PROMPTS * SAMPLES, num_generations=SAMPLES,
        gradient_accumulation_steps=1, max_prompt_length=PROMPT, max_completion_length=NEW, beta=0.05, learning_rate=1e-5,
        max_steps=ITERATIONS, report_to=[], save_strategy="no", use_cpu=True, bf16=False, temperature=1.0,
        disable_tqdm=True, logging_steps=1000, generation_kwargs={"min_new_tokens": NEW},
    )
    Timed(model=adapted(LlamaForCausalLM.from_pretrained(folder)), reward_funcs=reward, args=arguments,
          train_dataset=Dataset.from_dict({"prompt": texts}), processing_class=tokenizer).train()
    seconds = sorted(b - a for a, b in zip(ends, ends[1:]))
    return seconds[len(seconds) // 2]


model = adapted(LlamaForCausalLM(config))
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
tokens = torch.randint(0, vocabulary - 3, (ROWS, TIME))
figures = {
    "forward": median(lambda: forward(model, tokens)),
    "training_step": median(lambda: training_step(model, optimizer, tokens)),
    "generation": median(lambda: generation(model, tokens[:, :PROMPT]), 3),
}
sys.stdout, real = sys.stderr, sys.stdout
figures["iteration"] = rloo()
print(json.dumps(figures), file=real)
