# kimi-vl serve in a container: docker build -t kimi-vl . && docker run -p 8000:8000 -e KIMI_VL_API_KEYS=… kimi-vl
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY . .
RUN pip install --no-cache-dir torch==2.13.0 -c constraints.txt \
    && pip install --no-cache-dir '.[serve,heic]' -c constraints.txt \
    && useradd --create-home kimi
USER kimi
EXPOSE 8000
ENTRYPOINT ["kimi-vl", "serve", "--host", "0.0.0.0"]
