"""Questions about Tiles Server, each with its answer."""

from demo_model.conversation import Conversation
from demo_model.source import Source
from demo_model.table import choices, rows

# subjects ## answer ## words that a right answer holds
SUBJECTS = """
the chat endpoint|the endpoint for chat|the chat completions endpoint|the URL for chat completions|the OpenAI
  chat route ## POST /v1/chat/completions is the chat endpoint, with or without streaming. ##
  /v1/chat/completions
the models endpoint|the endpoint that lists models|the route for models|the URL of the model list ## GET
  /v1/models lists the models. ## /v1/models
the responses endpoint|the endpoint for OpenAI Responses|the Responses API route|the route for responses ##
  POST /v1/responses is the OpenAI Responses endpoint. ## /v1/responses
the messages endpoint|the Anthropic endpoint|the route for Anthropic messages|the URL for Claude clients ##
  POST /v1/messages is the Anthropic Messages endpoint. ## /v1/messages
the embeddings endpoint|the endpoint for embeddings|the route for embeddings|the URL to embed text ## POST
  /v1/embeddings gives embeddings. ## /v1/embeddings
the health endpoint|the endpoint for health|the health check|the route for the server's health ## GET /health
  tells whether a model is loaded. ## /health
the props endpoint|the endpoint for properties|the route with the settings of the model|the props route ##
  GET /props tells the settings of the loaded model. ## /props
the start endpoint|the endpoint that loads a model|the route to load a model over HTTP|the start route ##
  POST /start loads a model. ## /start
the API documentation|the docs page|the documentation of the API|the OpenAPI schema|the page with the docs ##
  The documentation is at /schema. ## /schema
the metrics endpoint|the endpoint for metrics|the route for metrics|the URL for Prometheus ## GET /metrics
  gives the metrics. ## /metrics
the default address|the address of the server|the default host and port|the default URL|the address you
  listen on ## The default address is 127.0.0.1:6969. ## 127.0.0.1:6969
the default port|the port of the server|the port number of the server|the port you listen on ## The default
  port is 6969. ## 6969
the default host|the host of the server ## The default host is 127.0.0.1. ## 127.0.0.1
the demo option|the option for the demo model|the command for the demo|the command that starts the demo ##
  `tiles-server --demo` starts the server with the demo model. ## tiles-server --demo
the model option|the option that chooses the model|the flag for the model|the --model flag ## `--model
  ID_OR_PATH` says which model to load. ## --model ID_OR_PATH
the host option|the option for the host|the flag for the address|the --host flag ## `--host` sets the address
  to listen on. ## --host
the port option|the option for the port|the flag for the port|the --port flag|the setting for another port ##
  `--port` sets the port. ## --port
the API key option|the option for the API key|the flag for an API key|the --api-key flag|the setting for the
  key ## `--api-key` sets the key that clients must send. ## --api-key
the models folder option|the option for a models folder|the flag for a folder of models|the --models-dir flag
  ## `--models-dir` names a folder of models to choose from. ## --models-dir
the Web UI option|the option for the Web UI folder|the flag for the Web UI|the --webui flag ## `--webui DIR`
  serves the Web UI from that folder. ## --webui DIR
the batch option|the option for the batch size|the flag for parallel requests|the --max-batch flag|the
  setting for the number of rows ## `--max-batch` sets how many requests run at once. ## --max-batch
the context option|the option for the context length|the flag for the context|the --context-length flag|the
  setting for the context size ## `--context-length` caps the context. ## --context-length
the command that lists models|the models command|the command to see the models on this machine ##
  `tiles-server models` lists the models on this machine. ## tiles-server models
the command that downloads a model|the pull command|the download command|the command to get a model ##
  `tiles-server pull ID` downloads a model. ## tiles-server pull
the doctor command|the command that checks the machine|the command to find problems ## `tiles-server doctor`
  says what would make this machine slow or fail. ## tiles-server doctor
the webui command|the command that installs the Web UI|the command to get the Web UI ## `tiles-server webui`
  gets or builds the Web UI. ## tiles-server webui
the chat command|the command to chat in the terminal|the terminal chat ## `tiles-server chat` talks with the
  model in the terminal. ## tiles-server chat
the bench command|the command that measures speed|the benchmark command ## `tiles-server bench` measures the
  speed. ## tiles-server bench
the session file|the file of the session|the path of the session file|the place of the session file ## The
  session file is `~/.tiles/server_session.json`. ## ~/.tiles/server_session.json
the bootstrap variable|the environment variable for the first model|the bootstrap model variable|the variable
  TILES_BOOTSTRAP_MODEL ## TILES_BOOTSTRAP_MODEL and TILES_BOOTSTRAP_MODEL_CACHE_PATH name the model to load at
  the start. ## TILES_BOOTSTRAP_MODEL
the session file variable|the variable for the session file|the environment variable of the session file ##
  TILES_SESSION_FILE says where the session file lives. ## TILES_SESSION_FILE
the Web UI|the llama.cpp Web UI|the browser interface|the web interface ## The Web UI is the llama.cpp chat
  page; get it with `tiles-server webui` and open the server's address in a browser. ## tiles-server webui
memory mode|the memory mode|the memory agent|the memory of the server ## In memory mode the model keeps notes
  as files and works on them with Python. ## notes
Tiles Server|tiles-server|this server|the Tiles server ## Tiles Server is a local inference server for MLX
  language models, with an OpenAI-compatible API. ## MLX
Tiles|the Tiles project ## Tiles is a local-first assistant; Tiles Server runs its models. ## local
MLX|the MLX framework ## MLX is the array framework that Tiles Server runs models with. ## framework
"""

QUESTION = """What is {s}?|Tell me {s}|what is {s}|Which is {s}?|Can you tell me {s}?|Do you know {s}?
Please tell me about {s}.|{s}?|I need {s}
Where do I find {s}?|How do I use {s}?|Explain {s}|Show me {s}|What about {s}?|Tell me about {s}
I am looking for {s}|Say what {s} is"""
HELD_OUT_QUESTION = (
    "Could you tell me {s}?|What exactly is {s}?|Please show me {s}.|I would like to know {s}|Could you explain {s}?"
)

# words that a right answer holds ## whole questions that the subjects above do not make
EXTRA = """
/v1/chat/completions ## Which endpoint do I use to chat?|How do I send a chat request?|Where do I post
  messages?|How can I chat over HTTP?
/v1/models ## How do I list the models over HTTP?|Which endpoint lists the models?|How can a client see the
  models?
127.0.0.1:6969 ## Where does the server listen?|Which address do I open?|Where does the server run?|What
  address are you on?
6969 ## Which port do you use?|What port does the server use?|On which port does it run?|which port
tiles-server --demo ## How do I start the demo?|How do I run the demo model?|How do I start you?
--port ## How do I change the port?|How can I use another port?|Can I set the port?
--host ## How do I listen on another address?|How do I change the host?
--api-key ## How do I set an API key?|How do I protect the server?|Can I use a key?|How do I require a password?
tiles-server pull ## How do I download a model?|How can I get a model?|How do I pull a model?
tiles-server models ## Which models are here?|How do I see my models?|How do I list my local models?
tiles-server doctor ## Why is it slow?|How do I check my machine?|Something is wrong with my machine, what
  can I run?
tiles-server bench ## How do I measure the speed?|How fast is it?|How do I benchmark the server?
--context-length ## How do I limit the context?|How do I set the context length?
--max-batch ## How many requests can run at once?|How do I set the batch size?
/health ## How do I check that the server is up?|How do I know whether a model is loaded?
/schema ## Where are the docs?|Where is the documentation?|Is there API documentation?
/metrics ## Where are the metrics?|Does the server have metrics?
~/.tiles/server_session.json ## Where is the session stored?|Where is the session file?|Where do you save the
  session?
tiles-server webui ## How do I get the Web UI?|Is there a web interface?|How do I open the Web UI?|Can I use
  a browser?
notes ## What does memory mode do?|How does the memory work?|How does memory mode work?
--models-dir ## How do I serve many models?|How can I offer several models?
/start ## How do I load a model over HTTP?|Which endpoint loads a model?
/v1/responses ## Do you support the Responses API?|Which endpoint is for OpenAI Responses?
/v1/messages ## Do you support Anthropic clients?|Can I use Claude clients?
/v1/embeddings ## How do I get embeddings?|Can you make embeddings?
tiles-server chat ## How do I chat in the terminal?|Can I chat without a browser?
TILES_BOOTSTRAP_MODEL ## How do I load a model at start with an environment variable?|Which environment
  variables are there?
"""


def fact(source: Source) -> Conversation:
    """A question about the server."""
    subject, answer, must = source.any(rows(SUBJECTS))
    extra = {cells[0]: cells[1] for cells in rows(EXTRA)}
    if must in extra and not source.held_out and source.chance(0.4):
        question = source.any(choices(extra[must]))
        answer = next(a for _, a, m in rows(SUBJECTS) if m == must)
    else:
        pattern = source.any(choices(HELD_OUT_QUESTION if source.held_out else QUESTION))
        question = pattern.format(s=source.any(choices(subject)))
    if source.chance(0.15) and not source.held_out:
        question = question[0].lower() + question[1:].rstrip("?.")
    return Conversation("facts").user(question).answer(answer, "The user asks about Tiles Server.", must)
