// The official client for Node against a running server: one JSON object of what came, for the test to look at.
//
//     node client.mjs URL LINE_DATA_URL
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const [url, line] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const model = (await client.models.list()).data[0].id;
const picture = { type: "image_url", image_url: { url: line } };
const messages = [{ role: "user", content: [picture, { type: "text", text: "Read the text." }] }];
const parameters = {
  type: "object",
  properties: { n: { type: "integer", minimum: 0, maximum: 99 } },
  required: ["n"],
  additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "look", parameters } }];
const seen = { model };

const whole = await client.chat.completions.create({ model, messages });
seen.chat = whole.choices[0].message.content;
seen.usage = whole.usage;

seen.streamed = "";
const stream = await client.chat.completions.create({
  model, messages, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  seen.streamed += chunk.choices[0]?.delta.content ?? "";
  seen.streamedUsage = chunk.usage ?? null;
}

const runner = client.chat.completions.stream({ model, messages, tools, tool_choice: "required", temperature: 1, seed: 1 });
seen.calls = (await runner.finalChatCompletion()).choices[0].message.tool_calls.map((call) => call.function);

const call = { id: "call_1", type: "function", function: { name: "look", arguments: '{"n": 1}' } };
const afterwards = await client.chat.completions.create({
  model,
  messages: [
    { role: "user", content: "Look." },
    { role: "assistant", content: null, tool_calls: [call] },
    { role: "tool", tool_call_id: "call_1", content: [picture, { type: "text", text: "Read the text." }] },
  ],
});
seen.afterTool = afterwards.usage.prompt_tokens_details;

const Thing = z.object({ colour: z.enum(["red", "green"]) });
const parsed = await client.chat.completions.parse({
  model, messages, temperature: 1, seed: 1, response_format: zodResponseFormat(Thing, "thing"),
});
seen.parsed = parsed.choices[0].message.parsed;

const input = [{
  role: "user",
  content: [{ type: "input_image", image_url: line, detail: "auto" }, { type: "input_text", text: "Read the text." }],
}];
seen.response = (await client.responses.create({ model, input })).output_text;
seen.events = [];
for await (const event of await client.responses.create({ model, input, stream: true })) seen.events.push(event.type);

try {
  await client.chat.completions.create({ model, messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } }] }] });
} catch (error) {
  seen.error = { status: error.status, code: error.code, name: error.constructor.name, message: error.message };
}
console.log(JSON.stringify(seen));
