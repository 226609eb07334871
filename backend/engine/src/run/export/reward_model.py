"""The reward model that steered the policy beside it: class distributions of an answer, one for each objective.

    python reward_model.py "How do I make tea?" "Boil water. Add tea."

needs: torch, transformers, safetensors (and peft where reward.json names a base model)

The model reads the question as the chat template puts it, with no wish in it, and the answer with its end-of-sequence token. Heads
are linear in the hidden state of the last token, after the last norm, in its mean over the answer's tokens, or in both side by
side: reward.json says which.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).resolve().parent


class RewardModel:
    def __init__(self, folder=HERE, base=None, dtype=torch.float32):
        """`base`: the base model, where it lies elsewhere than reward.json says."""
        folder = Path(folder)
        self.about = json.loads((folder / "reward.json").read_text())
        self.tokenizer = AutoTokenizer.from_pretrained(folder.parent)
        named = self.about["base_model"]
        if named is None:
            self.model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=dtype).model
        else:
            from peft import PeftModel

            where = {"gguf_file": self.about["gguf_file"]} if self.about["gguf_file"] else {}
            trunk = AutoModelForCausalLM.from_pretrained(base or named, torch_dtype=dtype, **where)
            trunk.model.layers = trunk.model.layers[: self.about["layers"]]  # it may stop halfway up
            self.model = PeftModel.from_pretrained(trunk, folder).base_model.model.model
        heads = load_file(folder / "heads.safetensors")
        self.weight, self.bias = heads["weight"], heads["bias"]

    @torch.no_grad()
    def outputs(self, question, answer):
        """What the heads put out, one list for each objective."""
        prompt = self.tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True)
        answer = self.tokenizer(answer, add_special_tokens=False)["input_ids"] + [self.tokenizer.eos_token_id]
        hidden = self.model(torch.tensor([prompt + answer])).last_hidden_state[0, len(prompt) :].float()
        parts = {"last": [hidden[-1]], "mean": [hidden.mean(0)], "last_and_mean": [hidden[-1], hidden.mean(0)]}
        columns = self.weight @ torch.cat(parts[self.about["pooling"]])
        objectives = self.about["objectives"]
        widths = [o["outputs"] for o in objectives]
        if self.about["loss"] == "coral":  # every threshold of a head reads the head's one column
            columns = torch.repeat_interleave(columns, torch.tensor(widths))
        return [part.tolist() for part in torch.split(columns + self.bias, widths)]

    def distributions(self, question, answer):
        """Calibrated class probabilities, one list for each objective, lowest class first."""
        named = zip(self.about["objectives"], self.outputs(question, answer))
        return {o["id"]: self.distribution(torch.tensor(out, dtype=torch.float64), o) for o, out in named}

    def distribution(self, out, objective):
        loss, t, n = self.about["loss"], objective["temperature"], len(objective["classes"])
        if loss in ("cross_entropy", "squared_emd"):
            return torch.softmax(out / t, 0).tolist()
        if loss == "regression":
            return torch.softmax(-0.5 * (out - torch.arange(n)) ** 2 / t**2, 0).tolist()
        if loss == "bradley_terry":
            above = torch.sigmoid((out - torch.tensor(objective["thresholds"])) / t)
        else:
            above = torch.sigmoid(out / t)
            above = torch.cumprod(above, 0) if loss == "corn" else above
        edges = torch.cat([torch.ones(1), above, torch.zeros(1)])
        share = (edges[:-1] - edges[1:]).clamp(min=0)
        return (share / share.sum()).tolist()


if __name__ == "__main__":
    question, answer = sys.argv[1:3]
    for objective, share in RewardModel().distributions(question, answer).items():
        print(f"{objective:20s}", "  ".join(f"{p:.3f}" for p in share))
