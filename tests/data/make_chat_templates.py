"""Renders the templates of chat_templates/ with transformers' own Jinja environment.

    python3 make_chat_templates.py > chat_templates/golden.json
"""
import json
import os
import sys

from transformers.utils.chat_template_utils import _compile_jinja_template

HERE = sys.path[0]
USER = {"role": "user", "content": " Hello, wörld! \n"}
CHATS = {
    "one": [USER],
    "system": [{"role": "system", "content": "Be brief."}, USER],
    "turns": [USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHi."},
              {"role": "user", "content": "Why \"quotes\"?\nSecond line."}],
    "parts": [{"role": "user", "content": [{"type": "text", "text": " a picture "},
                                           {"type": "image"}]}],
    "tool": [USER, {"role": "assistant", "content": "", "tool_calls": [
        {"function": {"name": "f", "arguments": {"x": 1, "y": "é"}}}]}, {"role": "tool", "content": "42"}],
    "wrong": [{"role": "assistant", "content": "first"}, USER, USER],
}
golden = []
for name in sorted(os.listdir(f"{HERE}/chat_templates")):
    if not name.endswith(".jinja"):
        continue
    template = _compile_jinja_template(open(f"{HERE}/chat_templates/{name}").read())
    for chat, messages in CHATS.items():
        for prompt in (True, False):
            case = {"template": name, "chat": chat, "messages": messages, "addGenerationPrompt": prompt}
            try:
                case["text"] = template.render(messages=messages, add_generation_prompt=prompt, tools=None,
                                               documents=None, bos_token="<s>", eos_token="</s>")
            except Exception as error:
                case["error"] = str(error)
            golden.append(case)
json.dump(golden, sys.stdout, indent=0)
